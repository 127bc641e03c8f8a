#include "words.hpp"

#include <doctest/doctest.h>

#include <limits>
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

TEST_CASE("numbers are read as Python reads them") {
  for (const char* one : {"1", "+1", " 1\t", "1.0", "1.", "1e0", "10E-1", "0_1", "01", "1_0e-1"}) CHECK(parse_float(one) == 1.0);
  CHECK(parse_float("-.5") == -0.5);
  CHECK(parse_float("inf") == std::numeric_limits<double>::infinity());
  CHECK(std::isnan(parse_float("nan").value()));
  for (const char* bad : {"", " ", "0x1", "0X1p3", "1x", "1 2", "_1", "1_", "1__0", "1._0", "nan(1)", "1e", "--1", "1,5"}) {
    INFO(bad);
    CHECK(parse_float(bad) == std::nullopt);
  }
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

TEST_CASE("messages name a path in one line of UTF-8, whatever it is") {
  using lpips::detail::shown;
  CHECK(shown("a b/gr\xc3\xb6\xc3\x9f" "e.onnx") == "a b/gr\xc3\xb6\xc3\x9f" "e.onnx");
  CHECK(shown("a\nb\x1b.onnx") == "a\\nb\\x1b.onnx");
  CHECK(shown("\xff\x80.onnx") == "\\udcff\\udc80.onnx");
}

TEST_CASE("foreign words are one line of UTF-8, cut between characters") {
  using lpips::detail::one_line;
  CHECK(one_line(" a\n\tb\r\x1b[31m ") == "a b [31m");
  CHECK(one_line("\xff") == "\\udcff");
  CHECK(one_line("\xe2\x80\xa8") == "\\u2028");
  CHECK(one_line("aaa\xc3\xb6", 4) == "aaa...");
  CHECK(one_line("aaa\xc3\xb6", 5) == "aaa\xc3\xb6");
}

TEST_CASE("of ONNX Runtime's words its source paths are left out") {
  using lpips::detail::words_of;
  CHECK(words_of("Failed: /src/core/graph/model.cc:179 onnxruntime::Model::Model(X&&, const Y&) Unsupported IR version: 10\n") ==
        "Failed: Unsupported IR version: 10");
  CHECK(words_of("/a/b.cc:12 void onnxruntime::X::f(int) (x == 3) was false. bad thing") == "bad thing");
  CHECK(words_of("Status: /a/k.h:7 const T* onnxruntime::K::Input(int) const [with T = onnxruntime::Tensor] Missing x") ==
        "Status: Missing x");
  CHECK(words_of("boom /a/b.cc:12 void x::f(int) [with T = int") == "boom");
  CHECK(words_of("/a/b.cc:12 void x::f(int) [with T = int") == "it does not say why");
  CHECK(words_of("") == "it does not say why");
  CHECK(words_of(nullptr) == "it does not say why");
  CHECK(words_of(std::string(5000, 'x').c_str()).size() == 203);
  CHECK_FALSE(contains(words_of("two\nlines"), "\n"));
}
