// Tests of opened models: skipped where $LPIPS_TEST_MODELS names no folder of them.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

int main(int count, char** given) {
  if (std::getenv("LPIPS_TEST_MODELS") == nullptr) {
    std::puts("LPIPS_TEST_MODELS names no folder of models");
    return 77;
  }
  return doctest::Context(count, given).run();
}
