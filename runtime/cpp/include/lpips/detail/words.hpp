// How messages are put together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace lpips::detail {

// A name with control characters, line ends and undecodable bytes as backslash escapes, which a terminal does not obey.
inline std::string visible(std::string_view name) {
  std::string out;
  const auto escaped = [&](const char* form, unsigned code) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, form, code);
    out += buffer;
  };
  for (std::size_t at = 0; at < name.size();) {
    const auto first = static_cast<unsigned char>(name[at]);
    const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    std::uint32_t code = length <= 1 ? first : first & (0x7fu >> length);
    bool valid = length > 0 && at + length <= name.size();
    for (std::size_t k = 1; valid && k < length; ++k) {
      const auto byte = static_cast<unsigned char>(name[at + k]);
      valid = (byte & 0xc0) == 0x80;
      code = code << 6 | (byte & 0x3fu);
    }
    valid = valid && !(length == 3 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) &&
            !(length == 4 && (code < 0x10000 || code > 0x10ffff));
    if (!valid) {
      escaped("\\udc%02x", first);
      ++at;
      continue;
    }
    if (code == '\t') {
      out += "\\t";
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code < 0x20 || (code >= 0x7f && code < 0xa0)) {
      escaped("\\x%02x", code);
    } else if (code == 0x2028 || code == 0x2029) {
      escaped("\\u%04x", code);
    } else {
      out.append(name.substr(at, length));
    }
    at += length;
  }
  return out;
}

// A path as messages name it: one line of UTF-8, whatever its bytes.
inline std::string shown(const std::filesystem::path& path) {
  const auto text = path.u8string();  // of char8_t from C++20 on
  return visible({reinterpret_cast<const char*>(text.data()), text.size()});
}

inline std::string size_of(std::int64_t width, std::int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

inline std::string images(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " image" : " images");
}

// Foreign words on one line of UTF-8: white space and control characters are one space each, and the rest is cut after
// 200 bytes.
inline std::string one_line(std::string_view text, std::size_t most = 200) {
  std::string out;
  for (const char c : text) {
    const bool space = static_cast<unsigned char>(c) <= ' ' || c == '\x7f';
    if (!space) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  out = visible(out);
  if (out.size() <= most) return out;
  // Not within a character of several bytes.
  while (most > 0 && (static_cast<unsigned char>(out[most]) & 0xC0) == 0x80) --most;
  return out.substr(0, most) + "...";
}

// What ONNX Runtime says, without its source paths ("/src/graph.cc:1587 void onnxruntime::Graph::Call(const X&) ...").
inline std::string words_of(const char* message) {
  std::string text = one_line(message == nullptr ? "" : message, 4000);
  for (const char* suffix : {".cc:", ".cpp:", ".h:", ".cu:"}) {
    for (std::size_t at = text.find(suffix); at != std::string::npos; at = text.find(suffix)) {
      const std::size_t before = text.rfind(' ', at);
      const std::size_t first = before == std::string::npos ? 0 : before + 1;
      std::size_t last = text.find(' ', at);
      const std::size_t open = text.find('(', at), close = text.find(") ", at);
      const std::size_t name = text.find("::", at);
      if (close != std::string::npos && name < open && open < close) {
        last = close + 1;
        if (text.compare(last, 7, " const ") == 0) last += 6;
        if (text.compare(last, 7, " [with ") == 0) {
          const std::size_t end = text.find("] ", last);
          last = end == std::string::npos ? end : end + 1;
        }
      }
      const std::size_t condition = text.find(" was false. ", at);
      if (condition != std::string::npos) last = condition + 11;
      text.erase(first, last == std::string::npos ? std::string::npos : last + 1 - first);
    }
  }
  const std::string cut = one_line(text);
  return cut.empty() ? "it does not say why" : cut;
}

}  // namespace lpips::detail
