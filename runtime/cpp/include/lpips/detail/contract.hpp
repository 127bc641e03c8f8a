// The contract between a model and whoever runs it: metadata, tensors, nets. lpips_runtime/contract.py and checks.py are
// the same in Python.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <locale>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../error.hpp"
#include "../model_info.hpp"
#include "words.hpp"

namespace lpips::detail {

// The side of an image that every net takes, pixels.
inline constexpr std::int64_t probe_side = 31;

// A net: number of its taps, the smallest side it takes, and the side of its first tap for an image of probe_side.
struct Net {
  std::string_view name;
  std::size_t depths;
  int smallest;
  std::int64_t first_side;
};

inline constexpr std::array<Net, 3> nets = {{{"alex", 5, 31, 7}, {"squeeze", 7, 17, 15}, {"vgg", 5, 16, 31}}};

inline const Net& net_of(const ModelInfo& info) {
  for (const Net& net : nets) {
    if (net.name == info.net) return net;
  }
  throw Error(Code::internal, "a net of no table: " + info.net);
}

// Metadata of a model, key to value.
using Metadata = std::map<std::string, std::string, std::less<>>;

namespace contract {

// A key of the metadata, where its value goes, and what it may be; no choice: anything.
struct Text {
  const char* key;
  std::string ModelInfo::* field;
  std::vector<std::string_view> allowed;
};

inline const std::vector<Text>& texts() {
  static const std::vector<Text> rows = {
      {"format", &ModelInfo::format, {}},
      {"kind", &ModelInfo::kind, {"pair", "features", "compare"}},
      {"net", &ModelInfo::net, {"alex", "squeeze", "vgg"}},
      {"version", &ModelInfo::version, {"0.1", "0.0"}},
      {"lin", &ModelInfo::lin, {"learned", "baseline", "custom"}},
      {"precision", &ModelInfo::precision, {"fp32", "fp16", "int8"}},
      {"target", &ModelInfo::target, {"", "cpu", "tensorrt", "openvino"}},
      {"input", &ModelInfo::input, {"float32", "uint8"}},
      {"backbone_sha256", &ModelInfo::backbone_sha256, {}},
      {"lin_sha256", &ModelInfo::lin_sha256, {}},
      {"exporter", &ModelInfo::exporter, {}},
      {"reference", &ModelInfo::reference, {}},
      {"license", &ModelInfo::license, {}},
      {"content_sha256", &ModelInfo::content_sha256, {}},
  };
  return rows;
}

struct Number {
  const char* key;
  int ModelInfo::* field;
};

inline constexpr std::array<Number, 3> numbers = {
    {{"min_size", &ModelInfo::min_size}, {"stride", &ModelInfo::stride}, {"halo", &ModelInfo::halo}}};

struct Real {
  const char* key;
  double ModelInfo::* field;
};

inline constexpr std::array<Real, 1> reals = {{{"eps", &ModelInfo::eps}}};

inline const std::string& value_of(const Metadata& metadata, const std::string& path, const char* key) {
  const auto found = metadata.find(std::string("lpips.") + key);
  if (found == metadata.end()) {
    throw Error(Code::damaged_model,
                path + ": metadata key lpips." + key + " is missing; export the model again");
  }
  return found->second;
}

[[noreturn]] inline void refuse(const std::string& path, const char* key, const std::string& value,
                                const std::string& needed) {
  throw Error(Code::damaged_model, path + ": metadata lpips." + key + " is '" + one_line(value, 60) + "', not " +
                                       needed + "; export the model again");
}

// Whole, positive, in digits.
inline int positive(const std::string& text) {
  std::int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    value = value * 10 + (c - '0');
    if (value > std::numeric_limits<int>::max()) return 0;
  }
  return static_cast<int>(value);
}

// Whatever the program's locale says of decimal points.
inline double small_number(const std::string& text) {
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  double value = 0;
  return in >> value && in.eof() ? value : 0;
}

// The shortest text that reads back as the same number: 1e-10.
inline std::string text_of(double value) {
  std::string text;
  for (int digits = 1; digits <= 17; ++digits) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out.precision(digits);
    out << value;
    text = out.str();
    if (small_number(text) == value) break;
  }
  return text;
}

// All that a model says of itself, as its metadata has it: keys without their prefix, and values.
inline std::vector<std::pair<std::string, std::string>> told(const ModelInfo& info) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const Text& row : texts()) rows.emplace_back(row.key, info.*row.field);
  for (const Number& row : numbers) rows.emplace_back(row.key, std::to_string(info.*row.field));
  for (const Real& row : reals) rows.emplace_back(row.key, text_of(info.*row.field));
  return rows;
}

}  // namespace contract

// `path` only names the file in errors: foreign_model for a model that is not ours or of another contract,
// damaged_model for a key that is missing or holds what the contract does not know.
inline ModelInfo read_info(const Metadata& metadata, const std::string& path) {
  const auto format = metadata.find("lpips.format");
  if (format == metadata.end()) {
    throw Error(Code::foreign_model, path + ": an ONNX model, but not one of lpips-export (no lpips.* metadata)");
  }
  if (format->second != "1") {
    throw Error(Code::foreign_model, path + ": written for contract version '" + one_line(format->second, 60) +
                                         "', this library reads version 1; upgrade it or export the model again");
  }
  ModelInfo info;
  for (const contract::Text& row : contract::texts()) {
    const std::string& value = contract::value_of(metadata, path, row.key);
    std::string choices;
    bool allowed = row.allowed.empty();
    for (const std::string_view choice : row.allowed) {
      allowed = allowed || choice == value;
      choices += (choices.empty() ? "'" : ", '") + std::string(choice) + "'";
    }
    if (!allowed) contract::refuse(path, row.key, value, "one of " + choices);
    info.*row.field = value;
  }
  for (const contract::Number& row : contract::numbers) {
    const std::string& value = contract::value_of(metadata, path, row.key);
    info.*row.field = contract::positive(value);
    if (info.*row.field == 0) contract::refuse(path, row.key, value, "a positive number");
  }
  for (const contract::Real& row : contract::reals) {
    const std::string& value = contract::value_of(metadata, path, row.key);
    const double number = contract::small_number(value);
    if (!(number > 0 && number < 1)) contract::refuse(path, row.key, value, "a number between 0 and 1");
    info.*row.field = number;
  }
  const Net& net = net_of(info);
  if (info.min_size < net.smallest) {
    throw Error(Code::damaged_model, path + ": metadata promises images of " + std::to_string(info.min_size) +
                                         " pixels, " + info.net + " needs at least " + std::to_string(net.smallest) +
                                         "; export the model again");
  }
  return info;
}

// Type and rank of a tensor; the type as ONNX Runtime numbers it, 1 for float, 2 for uint8.
struct TensorType {
  int type;
  std::size_t rank;

  bool operator==(const TensorType& other) const { return type == other.type && rank == other.rank; }
};

using Tensors = std::map<std::string, TensorType, std::less<>>;

inline constexpr int float_type = 1;
inline constexpr int uint8_type = 2;

// distance, layers, depth_0 ...
inline std::vector<std::string> result_names(std::size_t depths) {
  std::vector<std::string> names = {"distance", "layers"};
  for (std::size_t k = 0; k < depths; ++k) names.push_back("depth_" + std::to_string(k));
  return names;
}

// feature_0 ..., or with another side reference_0 ..., distorted_0 ...
inline std::vector<std::string> feature_names(std::size_t depths, const std::string& side = "feature") {
  std::vector<std::string> names;
  for (std::size_t k = 0; k < depths; ++k) names.push_back(side + "_" + std::to_string(k));
  return names;
}

inline void check_tensors(const ModelInfo& info, const std::string& path, const Tensors& inputs,
                          const Tensors& outputs) {
  const std::size_t depths = net_of(info).depths;
  const TensorType image = {info.input == "uint8" ? uint8_type : float_type, 4};
  Tensors expected_inputs, expected_outputs;
  if (info.kind == "features") {
    expected_inputs["image"] = image;
    for (const std::string& name : feature_names(depths)) expected_outputs[name] = {float_type, 4};
  } else {
    for (const char* side : {"reference", "distorted"}) {
      if (info.kind == "pair") {
        expected_inputs[side] = image;
      } else {
        for (const std::string& name : feature_names(depths, side)) expected_inputs[name] = {float_type, 4};
      }
    }
    for (const std::string& name : result_names(depths)) expected_outputs[name] = {float_type, 3};
    expected_outputs["distance"] = {float_type, 1};
    expected_outputs["layers"] = {float_type, 2};
  }
  if (!(inputs == expected_inputs && outputs == expected_outputs)) {
    throw Error(Code::damaged_model, path + ": its tensors are not those that its metadata promises (" + info.net +
                                         ", " + info.kind + ", " + info.input + "); export the model again");
  }
}

}  // namespace lpips::detail
