# known_failure.sh - sourced: known_failure PART NAME prints why NAME of PART is known to fail, or nothing. LEVEL, when set, names a CPU
# level whose own rows (PART-LEVEL) count too.
KNOWN_FAILURES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/known_failures.tsv
known_failure() { awk -F'\t' -v part="$1" -v name="$2" -v level="${LEVEL:-}" '($1==part || (level && $1==part "-" level)) && $2==name {print $3; exit}' "$KNOWN_FAILURES"; }
