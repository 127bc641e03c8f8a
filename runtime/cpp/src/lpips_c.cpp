// The C ABI of lpips.h over lpips.hpp. No exception leaves it.
#include <lpips/lpips.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <lpips/lpips.hpp>
#include <map>
#include <new>
#include <string>
#include <vector>

struct lpips_scorer {
  lpips::Scorer scorer;
  std::map<std::string, std::string> info;
};

struct lpips_detail {
  lpips::Detail detail;
};

struct lpips_features {
  lpips::Features features;
};

namespace {

static_assert(sizeof(lpips_error) == 1024, "part of the ABI");
static_assert(sizeof(void*) != 8 || sizeof(lpips_image) == 48, "part of the ABI");
static_assert(LPIPS_TRANSPARENT == static_cast<int>(lpips::Code::transparent), "one numbering");
static_assert(LPIPS_RUNTIME_TOO_OLD == static_cast<int>(lpips::Code::runtime_too_old), "one numbering");
static_assert(LPIPS_PLANAR_SYMMETRIC == static_cast<int>(lpips::Format::planar_symmetric), "one numbering");

int32_t report(lpips_error* error, lpips::Code code, const char* message) noexcept {
  if (error != nullptr) {
    error->code = static_cast<int32_t>(code);
    if (*message == '\0') message = lpips_code_message(error->code);
    std::size_t length = std::min(std::strlen(message), sizeof error->message - 1);
    // Not within a character of several bytes.
    for (int k = 0; k < 3 && message[length] != '\0' && (static_cast<unsigned char>(message[length]) & 0xC0) == 0x80; ++k) --length;
    std::memcpy(error->message, message, length);
    error->message[length] = '\0';
  }
  return static_cast<int32_t>(code);
}

// Runs `work`, and turns what it throws into a code.
template <typename Work>
int32_t coded(lpips_error* error, Work work) noexcept {
  if (error != nullptr) {
    error->code = LPIPS_OK;
    error->message[0] = '\0';
  }
  try {
    lpips::detail::guarded(work);
    return LPIPS_OK;
  } catch (const lpips::Error& fault) {
    return report(error, fault.code(), fault.what());
  } catch (const std::bad_alloc&) {  // for the message of an Error
    return report(error, lpips::Code::memory, "not enough memory; free some");
  } catch (...) {
    return report(error, lpips::Code::internal, "an exception of no known kind");
  }
}

void need(const void* pointer, const char* name) {
  if (pointer == nullptr) throw lpips::Error(lpips::Code::usage, std::string(name) + " is NULL; give one");
}

std::filesystem::path path_of(const char* text) { return std::filesystem::u8path(text); }

lpips::Options options_of(const lpips_options* given) {
  lpips::Options options;
  if (given == nullptr) return options;
  // A smaller size would be of no version; a larger one, of a later version, has fields that this one does not know.
  if (given->size != sizeof(lpips_options)) {
    throw lpips::Error(lpips::Code::usage, "options.size is " + std::to_string(given->size) + ", this library, version " +
                                               lpips_version() + ", knows " + std::to_string(sizeof(lpips_options)) +
                                               "; set it to sizeof(lpips_options) of its own header");
  }
  if (given->onnxruntime != nullptr) options.onnxruntime = path_of(given->onnxruntime);
  if (given->provider != nullptr) options.provider = given->provider;
  options.threads = given->threads;
  options.quick_start = given->quick_start != 0;
  return options;
}

std::vector<lpips::Image> images_of(const lpips_image* images, size_t count, const char* name) {
  need(images, name);
  if (count == 0) throw lpips::Error(lpips::Code::shape, std::string(name) + ": holds no image; give at least one");
  std::vector<lpips::Image> found;
  for (size_t k = 0; k < count; ++k) {
    if (images[k].reserved != 0) {
      throw lpips::Error(lpips::Code::usage, std::string(name) + ": reserved is not 0; set all of lpips_image");
    }
    lpips::Image image;
    image.data = images[k].data;
    image.bytes = images[k].bytes;
    image.width = images[k].width;
    image.height = images[k].height;
    image.stride = images[k].stride;
    image.format = static_cast<lpips::Format>(images[k].format);
    found.push_back(image);
  }
  return found;
}

lpips::Detail run(const lpips_scorer* scorer, const lpips_image* reference, const lpips_image* distorted, size_t count) {
  need(scorer, "scorer");
  return scorer->scorer.detail(images_of(reference, count, "reference"), images_of(distorted, count, "distorted"));
}

std::map<std::string, std::string> described(const lpips::Scorer& scorer) {
  std::map<std::string, std::string> found = {{"onnxruntime", scorer.onnxruntime_version()}};
  for (const auto& [key, value] : lpips::detail::contract::told(scorer.info())) found[key] = value;
  return found;
}

}  // namespace

const char* lpips_version(void) { return LPIPS_VERSION; }

const char* lpips_code_message(int32_t code) {
  switch (code) {
    case LPIPS_OK:
      return "fine";
    case LPIPS_USAGE:
      return "an argument that cannot be meant";
    case LPIPS_BUFFER:
      return "a buffer that is null, too short, or with a stride smaller than a row";
    case LPIPS_SHAPE:
      return "sides or counts that the model does not take or that differ";
    case LPIPS_VALUE:
      return "values that are not finite or not in their range";
    case LPIPS_TRANSPARENT:
      return "transparent pixels";
    case LPIPS_MODEL_NOT_FOUND:
      return "no model at this path";
    case LPIPS_FOREIGN_MODEL:
      return "not a model of lpips-export, or of another contract or export";
    case LPIPS_DAMAGED_MODEL:
      return "a damaged model";
    case LPIPS_RUNTIME_MISSING:
      return "ONNX Runtime cannot be loaded";
    case LPIPS_RUNTIME_TOO_OLD:
      return "ONNX Runtime is too old";
    case LPIPS_UNKNOWN_PROVIDER:
      return "an unknown execution provider";
    case LPIPS_PROVIDER:
      return "the execution provider is missing or failed";
    case LPIPS_FOREIGN_FEATURES:
      return "features of another model";
    case LPIPS_MEMORY:
      return "not enough memory";
    default:
      return "an internal fault";
  }
}

int32_t lpips_open(const char* model, const lpips_options* options, lpips_scorer** scorer, lpips_error* error) {
  if (scorer != nullptr) *scorer = nullptr;
  return coded(error, [&] {
    need(model, "model");
    need(scorer, "scorer");
    const lpips::Scorer opened(path_of(model), options_of(options));
    *scorer = new lpips_scorer{opened, described(opened)};
  });
}

void lpips_close(lpips_scorer* scorer) { delete scorer; }

const char* lpips_info(const lpips_scorer* scorer, const char* key) {
  if (scorer == nullptr || key == nullptr) return nullptr;
  try {
    const auto found = scorer->info.find(key);
    return found == scorer->info.end() ? nullptr : found->second.c_str();
  } catch (...) {  // no memory for the key
    return nullptr;
  }
}

int32_t lpips_score(const lpips_scorer* scorer, const lpips_image* reference, const lpips_image* distorted, size_t count,
                    float* distances, lpips_error* error) {
  return coded(error, [&] {
    need(distances, "distances");
    const lpips::Detail detail = run(scorer, reference, distorted, count);
    std::copy(detail.distance.begin(), detail.distance.end(), distances);
  });
}

int32_t lpips_run(const lpips_scorer* scorer, const lpips_image* reference, const lpips_image* distorted, size_t count,
                  lpips_detail** detail, lpips_error* error) {
  if (detail != nullptr) *detail = nullptr;
  return coded(error, [&] {
    need(detail, "detail");
    *detail = new lpips_detail{run(scorer, reference, distorted, count)};
  });
}

int32_t lpips_encode(const lpips_scorer* scorer, const lpips_image* images, size_t count, lpips_features** features,
                     lpips_error* error) {
  if (features != nullptr) *features = nullptr;
  return coded(error, [&] {
    need(features, "features");
    need(scorer, "scorer");
    *features = new lpips_features{scorer->scorer.encode(images_of(images, count, "images"))};
  });
}

int32_t lpips_compare(const lpips_scorer* scorer, const lpips_features* reference, const lpips_features* distorted,
                      lpips_detail** detail, lpips_error* error) {
  if (detail != nullptr) *detail = nullptr;
  return coded(error, [&] {
    need(detail, "detail");
    need(scorer, "scorer");
    need(reference, "reference");
    need(distorted, "distorted");
    *detail = new lpips_detail{scorer->scorer.compare(reference->features, distorted->features)};
  });
}

size_t lpips_features_count(const lpips_features* features) {
  return features == nullptr ? 0 : features->features.count();
}

void lpips_features_free(lpips_features* features) { delete features; }

size_t lpips_detail_count(const lpips_detail* detail) { return detail == nullptr ? 0 : detail->detail.distance.size(); }

const float* lpips_detail_distances(const lpips_detail* detail) {
  return detail == nullptr ? nullptr : detail->detail.distance.data();
}

size_t lpips_detail_depths(const lpips_detail* detail) { return detail == nullptr ? 0 : detail->detail.depths.size(); }

const float* lpips_detail_layers(const lpips_detail* detail) {
  return detail == nullptr ? nullptr : detail->detail.layers.data();
}

const float* lpips_detail_depth(const lpips_detail* detail, size_t k, int64_t* height, int64_t* width) {
  if (detail == nullptr || k >= detail->detail.depths.size()) return nullptr;
  const lpips::Depth& depth = detail->detail.depths[k];
  if (height != nullptr) *height = depth.height;
  if (width != nullptr) *width = depth.width;
  return depth.values.data();
}

int32_t lpips_detail_map(const lpips_detail* detail, float* map, size_t values, lpips_error* error) {
  return coded(error, [&] {
    need(detail, "detail");
    need(map, "map");
    const std::vector<float> made = detail->detail.map();
    if (values < made.size()) {
      throw lpips::Error(lpips::Code::buffer, "map: has room for " + std::to_string(values) + " values, " +
                                                  std::to_string(made.size()) + " are needed; give them");
    }
    std::copy(made.begin(), made.end(), map);
  });
}

void lpips_detail_size(const lpips_detail* detail, int64_t* height, int64_t* width) {
  if (height != nullptr) *height = detail == nullptr ? 0 : detail->detail.height;
  if (width != nullptr) *width = detail == nullptr ? 0 : detail->detail.width;
}

void lpips_detail_free(lpips_detail* detail) { delete detail; }
