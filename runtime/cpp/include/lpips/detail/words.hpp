// How messages are put together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lpips::detail {

inline std::string shown(const std::filesystem::path& path) {
  const auto text = path.u8string();  // of char8_t from C++20 on
  return std::string(reinterpret_cast<const char*>(text.data()), text.size());
}

inline std::string size_of(std::int64_t width, std::int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

inline std::string images(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " image" : " images");
}

// Foreign words on one line: white space and control characters are one space each, and the rest is cut after 200 bytes.
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
        if (text.compare(last, 7, " [with ") == 0) last = std::min(text.size(), text.find("] ", last) + 1);
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
