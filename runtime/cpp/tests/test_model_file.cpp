#include <doctest/doctest.h>

#include <fstream>
#include <lpips/detail/model_file.hpp>

#include "fault.hpp"

using namespace lpips;
using detail::Metadata;

namespace {

std::string varint(std::size_t value) {
  std::string out;
  for (; value > 127; value >>= 7) out += static_cast<char>((value & 127) | 128);
  return out + static_cast<char>(value);
}

std::string field(unsigned number, const std::string& content) {
  return varint(number << 3 | 2) + varint(content.size()) + content;
}

// A ModelProto of a graph that is none, and this metadata.
std::string model(const Metadata& metadata) {
  std::string out = std::string("\x08\x0a", 2) + field(7, "graph");
  for (const auto& [key, value] : metadata) out += field(14, field(1, key) + field(2, value));
  return out;
}

const Metadata good = {{"lpips.format", "1"},
                       {"lpips.kind", "pair"},
                       {"lpips.net", "alex"},
                       {"lpips.version", "0.1"},
                       {"lpips.lin", "learned"},
                       {"lpips.precision", "fp32"},
                       {"lpips.target", ""},
                       {"lpips.input", "float32"},
                       {"lpips.min_size", "31"},
                       {"lpips.stride", "16"},
                       {"lpips.halo", "96"},
                       {"lpips.eps", "1e-10"},
                       {"lpips.backbone_sha256", "b"},
                       {"lpips.lin_sha256", "l"},
                       {"lpips.exporter", "e"},
                       {"lpips.reference", "r"},
                       {"lpips.license", "none"},
                       {"lpips.content_sha256", "c"}};

std::optional<Code> info_code(const std::string& key, const std::optional<std::string>& value) {
  Metadata metadata = good;
  metadata.erase("lpips." + key);
  if (value) metadata["lpips." + key] = *value;
  return code_of([&] { detail::read_info(metadata, "x.onnx"); });
}

}  // namespace

TEST_CASE("metadata is read as it is written") {
  const ModelInfo info = detail::read_info(detail::read_metadata(model(good), "x.onnx"), "x.onnx");
  CHECK(info.net == "alex");
  CHECK(info.min_size == 31);
  CHECK(info.halo == 96);
  CHECK(info.eps == doctest::Approx(1e-10));
  CHECK(info.target.empty());
}

TEST_CASE("what a model says of itself is told as its metadata has it") {
  Metadata found;
  for (const auto& [key, value] : detail::contract::told(detail::read_info(good, "x.onnx"))) found["lpips." + key] = value;
  CHECK(found == good);
  CHECK(detail::contract::text_of(0.1) == "0.1");
  CHECK(detail::contract::small_number(detail::contract::text_of(1.0 / 3)) == 1.0 / 3);
}

TEST_CASE("of a key that is there twice the last counts, as in ONNX Runtime") {
  const std::string twice = model(good) + field(14, field(1, "lpips.net") + field(2, "vgg"));
  CHECK(detail::read_metadata(twice, "x.onnx").at("lpips.net") == "vgg");
}

TEST_CASE("a model of somebody else's, or of another contract, is foreign") {
  CHECK(info_code("format", std::nullopt) == Code::foreign_model);
  CHECK(info_code("format", "2") == Code::foreign_model);
  CHECK(code_of([] { detail::read_info({}, "x.onnx"); }) == Code::foreign_model);
}

TEST_CASE("metadata that the contract does not know is damage") {
  for (const auto& entry : good) {
    const std::string key = entry.first.substr(6);
    if (key != "format") CHECK(info_code(key, std::nullopt) == Code::damaged_model);
  }
  CHECK(info_code("net", "resnet") == Code::damaged_model);
  CHECK(info_code("net", "") == Code::damaged_model);
  CHECK(info_code("kind", "Pair") == Code::damaged_model);
  CHECK(info_code("input", "float16") == Code::damaged_model);
  for (const char* number : {"", "0", "-1", "31.0", "3l", "99999999999", "0x1f", " 31"}) {
    for (const char* key : {"min_size", "stride", "halo"}) CHECK(info_code(key, number) == Code::damaged_model);
  }
  for (const char* number : {"", "0", "-1e-10", "1", "nan", "inf", "1e-10x", "1e-999"}) {
    CHECK(info_code("eps", number) == Code::damaged_model);
  }
  CHECK(info_code("min_size", "30") == Code::damaged_model);  // ONNX Runtime dies of such images
  CHECK(info_code("min_size", "32") == std::nullopt);
}

TEST_CASE("what is no ONNX model is foreign, wherever it ends") {
  const std::string whole = model(good);
  CHECK(code_of([] { detail::read_metadata("", "x"); }) == Code::foreign_model);
  CHECK(code_of([] { detail::read_metadata("not an onnx model at all", "x"); }) == Code::foreign_model);
  CHECK(code_of([] { detail::read_metadata(std::string(1000, '\xff'), "x"); }) == Code::foreign_model);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    // Where it ends between two fields, what is left is a model without some of its metadata.
    CHECK_FALSE(code_of([&] { detail::read_info(detail::read_metadata(whole.substr(0, length), "x"), "x"); }) ==
                std::nullopt);
  }
}

TEST_CASE("a length that is longer than the file is refused") {
  std::string huge = model(good) + varint(14 << 3 | 2);
  for (int k = 0; k < 9; ++k) huge += '\xff';
  huge += '\x01';
  CHECK(code_of([&] { detail::read_metadata(huge, "x"); }) == Code::foreign_model);
}

TEST_CASE("the seal is of all bytes but its own") {
  Metadata unsealed = good;
  unsealed["lpips.content_sha256"] = std::string(64, '0');
  std::string data = model(unsealed);
  detail::Sha256 sha;
  sha.update(data);
  const std::string seal = sha.hex();
  data.replace(data.find(std::string(64, '0')), 64, seal);
  CHECK(detail::is_sealed(data, seal));
  for (std::size_t at = 0; at < data.size(); at += 13) {
    std::string changed = data;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    CHECK_FALSE(detail::is_sealed(changed, seal));
  }
  CHECK_FALSE(detail::is_sealed(data, ""));
  CHECK_FALSE(detail::is_sealed(data, seal.substr(1)));
  CHECK_FALSE(detail::is_sealed("", seal));
}

TEST_CASE("a model that is no file is not found") {
  CHECK(code_of([] { detail::read_model("/nowhere/x.onnx"); }) == Code::model_not_found);
  CHECK(code_of([] { detail::read_model(""); }) == Code::model_not_found);
  CHECK(code_of([] { detail::read_model("."); }) == Code::model_not_found);
#if defined(__linux__)
  CHECK(code_of([] { detail::read_model("/dev/zero"); }) == Code::model_not_found);
#endif
}
