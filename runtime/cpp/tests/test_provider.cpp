#include <doctest/doctest.h>

#include <lpips/lpips.hpp>

#include "fault.hpp"

using namespace lpips;

TEST_CASE("a provider is a name and the number of a device") {
  CHECK(detail::parse_provider("cpu").ort_name == "CPUExecutionProvider");
  CHECK(detail::parse_provider("cpu:0").device == 0);
  CHECK(detail::parse_provider("cuda").ort_name == "CUDAExecutionProvider");
  CHECK(detail::parse_provider("cuda:12").device == 12);
}

TEST_CASE("every other provider is an error that names those there are") {
  for (const char* name : {"", "CPU", "gpu", "openvino", "auto", "cuda:", "cuda:x", "cuda:-1", "cuda:1000", "cpu:1", "cpu\n"}) {
    std::string message;
    INFO(name);
    CHECK(code_of([&] { detail::parse_provider(name); }, &message) == Code::unknown_provider);
  }
  CHECK(contains(words_of_fault([] { detail::parse_provider("gpu"); }), "choose from cpu, cuda"));
}

TEST_CASE("threads are from 1 to what a machine has") {
  for (const int threads : {-1, 1025, 1 << 30}) {
    Options options;
    options.threads = threads;
    CHECK(code_of([&] { Scorer("x.onnx", options); }) == Code::usage);
  }
}

TEST_CASE("a process is given as many threads as it may use cores") {
  const int all = detail::default_threads();
#if defined(__linux__)
  CHECK(all >= 1);
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(all <= CPU_COUNT(&before));
  CPU_ZERO(&one);
  for (int number = 0; CPU_COUNT(&one) == 0; ++number) {
    if (CPU_ISSET(number, &before)) CPU_SET(number, &one);
  }
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  const int alone = detail::default_threads();
  REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(alone == 1);
#else
  CHECK(all >= 0);
#endif
}

TEST_CASE("whatever is thrown leaves as an Error") {
  std::string message;
  const auto code = [&](auto thrown) { return code_of([&] { detail::guarded([&] { throw thrown; }); }, &message); };
  CHECK(code(std::bad_alloc()) == Code::memory);
  CHECK(code(std::length_error("")) == Code::memory);
  CHECK(code(std::runtime_error("two\nlines")) == Code::internal);
  CHECK(contains(message, "two lines"));
  CHECK(code(Error(Code::shape, "an Error stays the one that it is")) == Code::shape);
}

TEST_CASE("what ONNX Runtime was to make and did not is want of memory") {
  CHECK(code_of([] { detail::check_made(nullptr, "x.onnx"); }) == Code::memory);
  int something = 0;
  CHECK(code_of([&] { detail::check_made(&something, "x.onnx"); }) == std::nullopt);
}
