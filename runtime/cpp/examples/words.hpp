// What lpips-score writes: numbers and names, byte for byte as the Python command does.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

// The shortest decimal that reads back as the same float: 0.72190344, 1e-07, 0.0.
inline std::string format_distance(float distance) {
  char buffer[64];
  const float size = std::fabs(distance);
  const bool positional = size == 0 || (size >= 1e-4f && size < 1e16f);
  const auto form = positional ? std::chars_format::fixed : std::chars_format::scientific;
  const std::to_chars_result end = std::to_chars(buffer, buffer + sizeof buffer, distance, form);
  std::string text(buffer, end.ptr);
  if (positional && text.find('.') == std::string::npos) text += ".0";
  return text;
}

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
