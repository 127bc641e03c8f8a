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

TEST_CASE("a process is given at least one thread") { CHECK(detail::default_threads() >= 0); }
