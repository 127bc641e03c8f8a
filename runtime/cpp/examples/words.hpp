// What lpips-score writes: numbers and names, byte for byte as the Python command does.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <lpips/detail/words.hpp>
#include <optional>
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

// As Python's float() reads a number in ASCII: white space around it, underscores between digits, inf and nan; no hex.
inline std::optional<double> parse_float(std::string_view text) {
  constexpr std::string_view spaces = " \t\n\v\f\r";
  const std::size_t first = text.find_first_not_of(spaces);
  if (first == std::string_view::npos) return std::nullopt;
  text = text.substr(first, text.find_last_not_of(spaces) + 1 - first);
  const auto is_digit = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  std::string digits;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == 'x' || text[at] == 'X' || text[at] == '(' || text[at] == '\0') return std::nullopt;
    if (text[at] != '_') {
      digits += text[at];
    } else if (at == 0 || !is_digit(at - 1) || !is_digit(at + 1)) {
      return std::nullopt;
    }
  }
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size() ? std::optional<double>(value) : std::nullopt;
}

using lpips::detail::visible;
