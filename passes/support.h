/* support.h - what several passes share: walking graphs, replacing values, constants, dims.
 * In: a module. Out: edits that keep uses, names and symbols consistent. */
#ifndef CMZ_PASSES_SUPPORT_H
#define CMZ_PASSES_SUPPORT_H

#include "../ir/evaluator.h"
#include "passes.h"

/* Whether graph G still belongs to a living node (or is an entry). */
bool cmz_pass_graph_alive(const cmz_module *m, cmz_gid g);
/* Whether INNER is G or lies inside it. */
bool cmz_pass_graph_within(const cmz_module *m, cmz_gid inner, cmz_gid g);
/* Every use of OLD becomes NEW; symbols that stand for OLD's content follow; a graph output keeps
 * its name. False (and nothing done) when OLD is a graph output that NEW cannot stand for. */
bool cmz_pass_replace(cmz_module *m, cmz_vid old_value, cmz_vid new_value);
/* Number of readers: uses plus graph outputs. */
uint32_t cmz_pass_use_count(const cmz_module *m, cmz_vid v);
/* The living node that makes V, when it is the operator OP of the default domain; else 0. */
cmz_nid cmz_pass_producer(const cmz_module *m, cmz_vid v, const char *op);
bool cmz_pass_is_op(const cmz_node *n, const char *op);
/* Replaces symbols by dims in every type and symbolic content of the module. */
void cmz_pass_substitute(cmz_module *m, const cmz_dim *replacement);
/* V's constant as an array; false when V is not constant. */
bool cmz_pass_constant_array(const cmz_module *m, cmz_vid v, cmz_array *out);
/* Whether any other value names V's constant, whose content may then not change. */
bool cmz_pass_shares_constant(const cmz_module *m, cmz_vid v);
/* A new constant value in graph G with the array's content (not copied). */
cmz_vid cmz_pass_add_array(cmz_module *m, cmz_gid g, const char *name, const cmz_array *a);
/* Replaces output OUTPUT of N by a constant; false when it could not. */
bool cmz_pass_to_constant(cmz_module *m, cmz_nid n, uint32_t output, const cmz_array *a);
/* Empties graph G and the graphs inside: its nodes are removed and no longer use anything. */
void cmz_pass_drop_graph(cmz_module *m, cmz_gid g);
/* Removes N, with its subgraphs, when nothing reads its outputs; and, for the first form, no symbol
 * stands for their content. */
bool cmz_pass_remove_if_unused(cmz_module *m, cmz_nid n);
bool cmz_pass_remove_if_dead(cmz_module *m, cmz_nid n);
/* Evaluates N when all of its inputs are constant and the results are worth storing; its outputs
 * become constants and it is removed. *DONE says whether. */
cmz_status cmz_pass_fold_node(cmz_module *m, cmz_nid n, size_t limit, bool *done);
/* An If whose condition is known becomes the nodes of the taken branch. */
cmz_status cmz_pass_fold_if(cmz_module *m, cmz_nid n, bool *done);
/* An If whose (inferred) branches give different ranks, which no type can say: the branch of lower
 * rank is taken, and the run checks that the condition is as assumed. */
cmz_status cmz_pass_take_branch(cmz_module *m, cmz_nid n, bool taken, bool *done);
cmz_status cmz_pass_decide_if(cmz_module *m, cmz_nid n, bool *done);

/* N, an operator on sequences or optionals whose inputs are typed, becomes operators on tensors
 * where lengths, positions and presence are known (sequences.c). *DONE says whether. The second
 * form: the nodes of N's subgraphs, typed already; *ANY becomes true when something was replaced,
 * and then N is to be inferred again. */
cmz_status cmz_pass_resolve_sequence(cmz_module *m, cmz_nid n, bool *done);
cmz_status cmz_pass_resolve_graphs(cmz_module *m, cmz_nid n, bool *any);

/* Codes of compressed weights in the order of a GPU's matrix fragments, where the target has those
 * (layout_fragments.c). */
void cmz_layout_fragments(const cmz_pass_run *run, cmz_module *m);
/* The order of codes of BITS in a [panel][line][16] constant: kernel.h's cmz_coded. NULL: none for
 * that width. */
const cmz_layout *cmz_layout_fragments_order(uint32_t bits);

/* Sizes at the hints; 1 when not known. */
int64_t cmz_pass_hint(const cmz_module *m, cmz_dim d);
uint64_t cmz_pass_hint_elements(const cmz_module *m, cmz_vid v);
bool cmz_pass_same_shape(const cmz_module *m, cmz_vid a, cmz_vid b);
bool cmz_pass_static_shape(const cmz_module *m, cmz_vid v);

#endif
