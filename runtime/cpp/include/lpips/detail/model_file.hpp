// A model's file: its bytes, the metadata in them, and the seal that tells whether they are whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "../error.hpp"
#include "contract.hpp"
#include "sha256.hpp"
#include "words.hpp"

namespace lpips::detail {

// What a protobuf message can hold.
inline constexpr std::uintmax_t most_model_bytes = std::uintmax_t{1} << 31;

inline std::string read_model(const std::filesystem::path& path) {
  const auto refuse = [&](Code code, const std::string& what) {
    throw Error(code, shown(path) + ": " + what + "; give the path of an .onnx file of lpips-export");
  };
  std::error_code fault;
  const std::filesystem::file_status status = std::filesystem::status(path, fault);
  if (status.type() == std::filesystem::file_type::not_found) refuse(Code::model_not_found, "no such model");
  if (fault) refuse(Code::model_not_found, "cannot be opened: " + fault.message());
  if (!std::filesystem::is_regular_file(status)) {
    refuse(Code::model_not_found, std::filesystem::is_directory(status) ? "is a folder" : "is no regular file");
  }
  const std::uintmax_t size = std::filesystem::file_size(path, fault);
  if (fault) refuse(Code::model_not_found, "cannot be read: " + fault.message());
  if (size >= most_model_bytes) refuse(Code::foreign_model, "is larger than a model can be");
  std::string data(static_cast<std::size_t>(size), '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(Code::model_not_found, "cannot be read, permission may be denied");
  if (!file.read(data.data(), static_cast<std::streamsize>(data.size()))) {
    refuse(Code::model_not_found, "cannot be read to its end");
  }
  return data;
}

// Reads protobuf's wire format, as far as ModelProto's own fields need it.
class Fields {
 public:
  explicit Fields(std::string_view data) : rest_(data) {}

  std::uint32_t number = 0;
  std::string_view content;  // of a field with a length, else empty

  // Goes on to the next field; false at the end, or where no field can be read: `broken` tells them apart.
  bool next() {
    if (rest_.empty() || broken) return false;
    const std::optional<std::uint64_t> tag = varint();
    if (!tag || (*tag >> 3) == 0 || (*tag >> 3) > 0x1fffffff) return fail();
    number = static_cast<std::uint32_t>(*tag >> 3);
    content = {};
    switch (*tag & 7) {
      case 0:
        return varint() ? true : fail();
      case 1:
        return skip(8);
      case 2: {
        const std::optional<std::uint64_t> length = varint();
        if (!length || *length > rest_.size()) return fail();
        content = rest_.substr(0, static_cast<std::size_t>(*length));
        return skip(content.size());
      }
      case 5:
        return skip(4);
      default:
        return fail();
    }
  }

  bool broken = false;

 private:
  bool fail() {
    broken = true;
    return false;
  }

  bool skip(std::size_t length) {
    if (length > rest_.size()) return fail();
    rest_.remove_prefix(length);
    return true;
  }

  std::optional<std::uint64_t> varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    return std::nullopt;
  }

  std::string_view rest_;
};

// The metadata_props of a serialised ModelProto (field 14; each has key and value, 1 and 2). Read here, so that a foreign
// or damaged file never gets as far as ONNX Runtime.
inline Metadata read_metadata(std::string_view data, const std::string& path) {
  Metadata metadata;
  Fields fields(data);
  bool graph = false;
  while (fields.next()) {
    graph = graph || (fields.number == 7 && !fields.content.empty());
    if (fields.number != 14) continue;
    std::string key, value;
    Fields entry(fields.content);
    while (entry.next()) {
      if (entry.number == 1) key = entry.content;
      if (entry.number == 2) value = entry.content;
    }
    if (entry.broken) fields.broken = true;
    metadata[key] = value;
  }
  if (fields.broken || !graph) {
    throw Error(Code::foreign_model, path + ": not an ONNX model, or a damaged one; export the model again");
  }
  return metadata;
}

// Whether these are the bytes that were sealed with this hash: theirs, with 64 zeros in its own place.
inline bool is_sealed(std::string_view data, std::string_view content_sha256) {
  // Metadata follows the graph, so from the end it is found at once.
  const std::size_t at = content_sha256.size() == 64 ? data.rfind(content_sha256) : std::string_view::npos;
  if (at == std::string_view::npos) return false;
  Sha256 hash;
  hash.update(data.substr(0, at));
  hash.update(std::string(64, '0'));
  hash.update(data.substr(at + 64));
  return hash.hex() == content_sha256;
}

}  // namespace lpips::detail
