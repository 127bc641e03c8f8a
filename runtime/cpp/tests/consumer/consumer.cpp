#include <cstdio>
#include <lpips/lpips.hpp>

int main(int count, char** given) {
  if (count != 2) return 2;
  try {
    const lpips::Scorer scorer(given[1]);
    const std::vector<std::uint8_t> black(64 * 64 * 3, 0), white(64 * 64 * 3, 255);
    std::printf("%g\n", static_cast<double>(scorer.score({black.data(), black.size(), 64, 64}, {white.data(), white.size(), 64, 64})));
  } catch (const lpips::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
