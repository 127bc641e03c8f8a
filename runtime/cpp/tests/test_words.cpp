#include "words.hpp"

#include <doctest/doctest.h>

#include <lpips/detail/words.hpp>

#include "fault.hpp"

TEST_CASE("distances are printed as numpy prints a float32") {
  CHECK(format_distance(0.0f) == "0.0");
  CHECK(format_distance(0.72190344f) == "0.72190344");
  CHECK(format_distance(0.1f) == "0.1");
  CHECK(format_distance(1.0f) == "1.0");
  CHECK(format_distance(1e-7f) == "1e-07");
  CHECK(format_distance(1.5e-7f) == "1.5e-07");
  CHECK(format_distance(0.0001f) == "0.0001");
  CHECK(format_distance(9.9999e-5f) == "9.9999e-05");
  CHECK(format_distance(123456.0f) == "123456.0");
}

TEST_CASE("names hold nothing that a terminal would obey") {
  CHECK(visible("a b.png") == "a b.png");
  CHECK(visible("tab\there\nand\x1b[31m") == "tab\\there\\nand\\x1b[31m");
  CHECK(visible("\xc3\xa9.png") == "\xc3\xa9.png");
  CHECK(visible("\xff.png") == "\\udcff.png");
  CHECK(visible("\xc3") == "\\udcc3");
  CHECK(visible("\xe2\x80\xa8") == "\\u2028");
  CHECK(visible("\xc2\x85") == "\\x85");
  CHECK(visible("\xed\xa0\x80") == "\\udced\\udca0\\udc80");
}

TEST_CASE("of ONNX Runtime's words its source paths are left out") {
  using lpips::detail::words_of;
  CHECK(words_of("Failed: /src/core/graph/model.cc:179 onnxruntime::Model::Model(X&&, const Y&) Unsupported IR version: 10\n") ==
        "Failed: Unsupported IR version: 10");
  CHECK(words_of("/a/b.cc:12 void onnxruntime::X::f(int) (x == 3) was false. bad thing") == "bad thing");
  CHECK(words_of("Status: /a/k.h:7 const T* onnxruntime::K::Input(int) const [with T = onnxruntime::Tensor] Missing x") ==
        "Status: Missing x");
  CHECK(words_of("") == "it does not say why");
  CHECK(words_of(nullptr) == "it does not say why");
  CHECK(words_of(std::string(5000, 'x').c_str()).size() == 203);
  CHECK_FALSE(contains(words_of("two\nlines"), "\n"));
}
