// digits.cpp - the same model from C++: RAII around the generated header, no exceptions needed.
//
// usage: digits_cpp INPUT.npy
// In: one picture. Out: the digit, on stdout. The model is digits.o, linked in.
#include "digits.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <vector>

namespace {

struct Destroy {
  void operator()(digits *model) const { digits_destroy(model); }
};
using Model = std::unique_ptr<digits, Destroy>;

// The floats behind the header of a version-1 .npy file; empty when it is not one of COUNT floats.
std::vector<float> read_npy(const char *path, std::size_t count) {
  std::ifstream file(path, std::ios::binary);
  std::array<unsigned char, 10> head{};
  file.read(reinterpret_cast<char *>(head.data()), head.size());
  file.seekg(head[8] | head[9] << 8, std::ios::cur);
  std::vector<float> values(count);
  file.read(reinterpret_cast<char *>(values.data()), static_cast<std::streamsize>(count * sizeof(float)));
  if (!file || head[0] != 0x93) values.clear();
  return values;
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: digits_cpp INPUT.npy\n");
    return 2;
  }
  const std::vector<float> picture = read_npy(argv[1], DIGITS_INPUT3_ELEMENTS);
  std::array<float, DIGITS_PLUS214_OUTPUT_0_ELEMENTS> scores{};
  digits *raw = nullptr;
  const int created = digits_create(nullptr, &raw);
  const Model model(raw);
  if (picture.empty() || created != 0 || digits_run(raw, picture.data(), scores.data()) != 0) {
    std::fprintf(stderr, "%s\n", picture.empty() ? "not a picture" : digits_error(raw));
    return 1;
  }
  std::printf("%d\n", static_cast<int>(std::max_element(scores.begin(), scores.end()) - scores.begin()));
  return 0;
}
