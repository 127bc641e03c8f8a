// What a call throws, for tests.
#pragma once

#include <doctest/doctest.h>

#include <lpips/error.hpp>
#include <optional>
#include <string>

// The code, or none if nothing is thrown. An error's message must be one line.
template <typename Call>
std::optional<lpips::Code> code_of(Call call, std::string* message = nullptr) {
  try {
    call();
  } catch (const lpips::Error& error) {
    const std::string what = error.what();
    if (message != nullptr) *message = what;
    INFO(what);
    CHECK(what.find('\n') == std::string::npos);
    CHECK(what.size() > 20);
    return error.code();
  }
  return std::nullopt;
}

template <typename Call>
std::string words_of_fault(Call call) {
  std::string message;
  code_of(call, &message);
  return message;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
