// lpips-score as a native program: one pair, or one reference against many. Output and exit codes are those of the Python
// command for these.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <lpips/lpips.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image_file.hpp"
#include "words.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* help = R"(usage: lpips-score [-m MODEL] REF DIST [DIST ...]

Score images with LPIPS: 0 for equal images, larger the more they differ to a person.

  -m, --model MODEL   an .onnx file of lpips-export, or a name such as alex
                      (default: $LPIPS_MODEL, then artifacts/lpips_alex_fp32.onnx)
  --provider NAME     cpu, cuda, or one of its devices as in cuda:1 (default: cpu)
  --threads N         threads on the CPU (default: the cores that it may use)
  --onnxruntime FILE  ONNX Runtime's library (default: $LPIPS_ONNXRUNTIME, then the system's)
  --layers            add each depth's share of the distance
  --fail-above X      exit with 1 if any distance is above X
  --timing            say on stderr where the time from start to number went
  --version           print the version
  -h, --help          print this

PNG and JPEG. exit codes: 0 fine; 1 a distance is above --fail-above; 2 the call was wrong; 3 a file could not be read or
a pair could not be scored. Results go to stdout, everything else to stderr.
)";

void say(const std::string& text) { std::fprintf(stderr, "%s\n", visible(text).c_str()); }

// Ends the program with this exit code; the message goes to stderr.
struct Ended {
  int code;
  std::string message;
};

struct Arguments {
  std::optional<std::string> model{};
  lpips::Options options{};
  bool layers = false;
  bool timing = false;
  std::optional<double> fail_above{};
  std::vector<std::string> names{};
};

Arguments parse(int count, char** given) {
  Arguments arguments;
  const auto wrong = [](const std::string& what) -> Ended { return {2, what + "; see lpips-score --help"}; };
  bool only_names = false;
  for (int k = 1; k < count; ++k) {
    std::string option = given[k];
    if (only_names || option.size() < 2 || option[0] != '-') {
      arguments.names.push_back(option);
      continue;
    }
    if (option == "--") {
      only_names = true;
      continue;
    }
    std::optional<std::string> attached;
    const std::size_t equals = option.find('=');
    if (option[1] == '-' && equals != std::string::npos) {
      attached = option.substr(equals + 1);
      option.erase(equals);
    } else if (option[1] == 'm' && option.size() > 2) {
      attached = option.substr(option[2] == '=' ? 3 : 2);
      option.erase(2);
    }
    const auto value = [&]() -> std::string {
      if (attached) return *attached;
      if (k + 1 >= count) throw wrong("argument " + option + ": expected one argument");
      return given[++k];
    };
    if (option == "-m" || option == "--model") {
      arguments.model = value();
    } else if (option == "--provider") {
      arguments.options.provider = value();
    } else if (option == "--onnxruntime") {
      arguments.options.onnxruntime = value();
    } else if (option == "--threads") {
      const std::string text = value();
      const bool digits = !text.empty() && text.size() < 5 && text.find_first_not_of("0123456789") == std::string::npos;
      arguments.options.threads = digits ? std::atoi(text.c_str()) : 0;
      if (arguments.options.threads < 1 || arguments.options.threads > 1024) {
        throw wrong("argument --threads: '" + text + "' is no number of threads; give 1 to 1024");
      }
    } else if (option == "--fail-above") {
      const std::string text = value();
      arguments.fail_above = parse_float(text);
      if (!arguments.fail_above || !(*arguments.fail_above >= 0)) {
        throw wrong("argument --fail-above: '" + text + "' is no distance; give a number of 0 or more");
      }
    } else if (attached) {
      throw wrong("unrecognized arguments: " + std::string(given[k]));
    } else if (option == "--layers") {
      arguments.layers = true;
    } else if (option == "--timing") {
      arguments.timing = true;
    } else if (option == "--version") {
      std::printf("lpips-score %s\n", LPIPS_VERSION);
      throw Ended{0, ""};
    } else if (option == "-h" || option == "--help") {
      std::fputs(help, stdout);
      throw Ended{0, ""};
    } else {
      throw wrong("unrecognized arguments: " + option);
    }
  }
  if (arguments.names.empty()) throw wrong("give REF DIST, and nothing was given");
  if (arguments.names.size() == 1) {
    throw Ended{2, arguments.names[0] + ": nothing to compare it with; give REF DIST [DIST ...]"};
  }
  for (const std::string& name : arguments.names) {
    std::error_code fault;
    if (!std::filesystem::is_directory(name, fault)) continue;
    throw Ended{2, "give a reference image and one or more distorted images; " + name + " is a folder"};
  }
  return arguments;
}

// alex-uint8 -> lpips_alex_fp32_uint8; empty for what is no name of a model.
std::string stem_of(const std::string& name) {
  std::vector<std::string> parts(1);
  for (const char c : name) {
    if (c == '-') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  const auto is = [&](std::size_t k, const char* word) { return k < parts.size() && parts[k] == word; };
  if (!(is(0, "alex") || is(0, "vgg") || is(0, "squeeze"))) return "";
  std::size_t k = 1;
  std::string stem = "lpips_" + parts[0] + "_";
  stem += is(k, "fp32") || is(k, "fp16") || is(k, "int8") ? parts[k++] : "fp32";
  for (const char* word : {"v0.0", "baseline", "custom", "uint8", "tensorrt"}) {
    if (!is(k, word)) continue;
    stem += "_" + parts[k++];
    if (std::strcmp(word, "custom") == 0 && k < parts.size()) stem += "-" + parts[k++];
  }
  return k == parts.size() ? stem : "";
}

// None: $LPIPS_MODEL, then alex.
std::filesystem::path find_model(const std::optional<std::string>& named) {
  std::string origin, model = named.value_or("");
  const char* variable = std::getenv("LPIPS_MODEL");
  if (!named && variable != nullptr && *variable != '\0') {
    model = variable;
    origin = " (from $LPIPS_MODEL)";
  }
  if (!named && model.empty()) model = "alex";
  std::error_code fault;
  std::filesystem::path path = model.empty() ? "." : model;
  if (!std::filesystem::is_regular_file(path, fault)) {
    const std::string stem = stem_of(model);
    if (!stem.empty()) path = std::filesystem::path("artifacts") / (stem + ".onnx");
  }
  if (!std::filesystem::exists(path, fault)) {
    throw Ended{2, path.string() + origin +
                       ": no such model; export it with lpips-export, or name a model with -m or $LPIPS_MODEL"};
  }
  return path;
}

// How a model's numbers differ from plain LPIPS v0.1.
void tell_of_model(const lpips::ModelInfo& info, const std::string& file) {
  static const std::map<std::string, std::string> backbones = {
      {"alex", "44534cd66e37ce9a6258bb5e845ef8cd47c33aa68024441c7e616d63c0c1c41a"},
      {"squeeze", "9a3cd24c3da63ec76ec50dabac44e862029b5c84992e5ddd582be22d0f9ef388"},
      {"vgg", "02ea23240491c2589ec6c79346a0cd2cde49db15b57118399c02f252fb928f83"}};
  std::string peculiar;
  const auto add = [&](const std::string& what) { peculiar += (peculiar.empty() ? "" : ", ") + what; };
  if (info.version != "0.1") add("LPIPS v" + info.version);
  if (info.lin == "baseline") add("unweighted baseline (no lin weights)");
  if (info.lin == "custom") add("custom lin weights");
  if (info.backbone_sha256 != backbones.at(info.net)) add("custom backbone weights");
  if (!peculiar.empty()) say("note: " + file + " is not plain LPIPS v0.1: " + peculiar);
}

void tell_of_speed(const lpips::ModelInfo& info, const std::string& file, const std::string& provider) {
  if (provider.substr(0, 3) != "cpu") return;
  const char* slower = " is slower than float32 on CPUs; use the fp32 model there";
  if (info.precision == "fp16") say("note: " + file + ": half precision" + slower);
  if (info.target == "tensorrt") say("note: " + file + ": INT8 for TensorRT" + slower);
  if (info.target == "openvino") {
    say("note: " + file + ": is arranged for OpenVINO; use the model without openvino in its name there");
  }
}

lpips::Image view(const Picture& picture) {
  return {picture.pixels.data(), picture.pixels.size(), picture.width, picture.height};
}

// The reference, and what of it is kept over its pairs.
class Reference {
 public:
  // many: encode it once, if the graphs of --split lie beside the model and belong to it.
  Reference(const lpips::Scorer& scorer, const std::filesystem::path& model, std::string name, bool many)
      : scorer_(scorer), name_(std::move(name)), split_(many) {
    const auto beside = [&](const char* kind) {
      std::filesystem::path sibling = model;
      sibling.replace_filename(model.stem().string() + kind + model.extension().string());
      std::error_code fault;
      return std::filesystem::exists(sibling, fault);
    };
    if (many && !(beside("_features") && beside("_compare"))) {
      split_ = false;
      hindrance_ =
          "an image that was compared before is encoded again; with the graphs that lpips-export --split writes beside "
          "the model each image is encoded once";
    }
  }

  // Notes of both files, and on how they are compared, go to `notes`.
  lpips::Detail against(const std::string& distorted, std::map<std::string, std::string>& notes) {
    if (!picture_) picture_ = load_image(name_);
    const Picture other = load_image(distorted);
    notes = picture_->notes;
    notes.insert(other.notes.begin(), other.notes.end());
    const bool alike = picture_->width == other.width && picture_->height == other.height;
    if (alike && is_encoded()) return scorer_.compare(features_, scorer_.encode(view(other)));
    lpips::Detail found = scorer_.detail(view(*picture_), view(other));  // which says what is wrong with the sizes
    if (!hindrance_.empty() && whole_++ >= worth_a_word) notes["unsplit"] = hindrance_;
    return found;
  }

 private:
  // Times that the reference was encoded in vain before it is said, as in lpips_runtime/reuse.py.
  static constexpr std::size_t worth_a_word = 16;

  bool is_encoded() {
    if (!split_ || features_.count() > 0) return split_;
    try {
      features_ = scorer_.encode(view(*picture_));
    } catch (const lpips::Error& error) {
      // Graphs that are of no use; the pair's own may do.
      switch (error.code()) {
        case lpips::Code::model_not_found:
        case lpips::Code::foreign_model:
        case lpips::Code::damaged_model:
        case lpips::Code::provider:
          break;
        default:
          throw;
      }
      split_ = false;
      hindrance_ = std::string("an image that was compared before is encoded again, because ") + error.what();
    }
    return split_;
  }

  const lpips::Scorer& scorer_;
  std::string name_;
  bool split_;
  std::string hindrance_{};  // why it is not encoded once
  std::size_t whole_ = 0;    // pairs that were scored by the pair graph for that reason
  std::optional<Picture> picture_{};
  lpips::Features features_{};
};

// Remarks on files, each kind once, with how many pairs it holds for.
class Notes {
 public:
  void add(const std::map<std::string, std::string>& notes, const std::string& pair) {
    for (const auto& note : notes) {
      const std::string& text = note.second;
      auto found = std::find_if(rows_.begin(), rows_.end(), [&](const Row& row) { return row.text == text; });
      if (found == rows_.end()) found = rows_.insert(rows_.end(), {text, pair, 0});
      ++found->count;
    }
  }

  void tell() const {
    for (const Row& row : rows_) {
      const std::size_t others = row.count - 1;
      const std::string more =
          others == 0 ? "" : " and " + std::to_string(others) + " other pair" + (others == 1 ? "" : "s");
      say("note: " + row.pair + more + ": " + row.text);
    }
  }

 private:
  struct Row {
    std::string text;
    std::string pair;
    std::size_t count;
  };
  std::vector<Row> rows_{};
};

void write(const std::string& row, std::size_t written) {
  if (std::fputs(row.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    throw Ended{3, std::string("standard output: cannot be written: ") + std::strerror(errno) +
                       "; rows safely written: " + std::to_string(written)};
  }
}

std::string shortened(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
  return buffer;
}

std::string pairs_of(std::size_t count) { return std::to_string(count) + " pair" + (count == 1 ? "" : "s"); }

std::string summary(std::vector<double> distances, std::size_t failed, const std::string& provider) {
  const std::string also = failed == 0 ? "" : ", " + std::to_string(failed) + " failed";
  if (distances.empty()) return "nothing was scored" + also;
  double sum = 0;
  for (const double distance : distances) sum += distance;
  std::sort(distances.begin(), distances.end());
  const std::size_t middle = distances.size() / 2;
  const double median = distances.size() % 2 == 1 ? distances[middle] : (distances[middle - 1] + distances[middle]) / 2;
  return "mean " + shortened(sum / static_cast<double>(distances.size()), 6) + ", median " + shortened(median, 6) +
         " over " + pairs_of(distances.size()) + " on " + provider + also;
}

// Where the time of one pair goes, part by part, in milliseconds.
class Timing {
 public:
  explicit Timing(Clock::time_point start) : start_(start), last_(start) {}

  void mark(const char* what) {
    const Clock::time_point now = Clock::now();
    parts_ += (parts_.empty() ? "" : ", ") + std::string(what) + " " + since(last_, now);
    last_ = now;
  }

  void tell() const { say("timing: " + since(start_, last_) + " ms from start to number: " + parts_); }

  static std::string since(Clock::time_point from, Clock::time_point to) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.1f", std::chrono::duration<double, std::milli>(to - from).count());
    return buffer;
  }

 private:
  Clock::time_point start_;
  Clock::time_point last_;
  std::string parts_{};
};

// What opening a model takes, step by step and each by itself: a second time, after the number.
void tell_of_opening(const std::filesystem::path& model) {
  const Clock::time_point start = Clock::now();
  const std::string data = lpips::detail::read_model(model);
  const Clock::time_point read = Clock::now();
  const lpips::ModelInfo info = lpips::detail::read_info(lpips::detail::read_metadata(data, model.string()), model.string());
  const bool sealed = lpips::detail::is_sealed(data, info.content_sha256);
  say("timing: of the model, reading takes " + Timing::since(start, read) + " ms, and its seal " +
      Timing::since(read, Clock::now()) + " ms" + (sealed ? "" : ", which is broken,") +
      " on another core while the session is created");
}

int run(int count, char** given) {
  Timing timing(Clock::now());
  const Arguments arguments = parse(count, given);
  const std::filesystem::path model = find_model(arguments.model);
  const bool single = arguments.names.size() == 2;
  lpips::Options options = arguments.options;
  options.quick_start = single;
  const std::string file = model.filename().string();
  if (arguments.timing) {
    const lpips::detail::Library loaded(options.onnxruntime);  // stays, and is found loaded by the Scorer
    timing.mark("load ONNX Runtime");
  }
  const lpips::Scorer scorer(model, options);
  timing.mark("open the model");
  tell_of_model(scorer.info(), file);
  tell_of_speed(scorer.info(), file, options.provider);

  const std::string& name = arguments.names[0];
  Reference reference(scorer, model, name, !single);
  Notes notes;
  std::vector<double> distances;
  std::size_t failed = 0, above = 0;
  float worst = -1;
  std::string worst_pair;
  for (std::size_t k = 1; k < arguments.names.size(); ++k) {
    const std::string& distorted = arguments.names[k];
    const std::string pair = name + ", " + distorted;
    try {
      std::map<std::string, std::string> remarks;
      const lpips::Detail found = reference.against(distorted, remarks);
      const float distance = found.distance[0];
      std::string row = format_distance(distance);
      if (!single) row += "\t" + visible(name) + "\t" + visible(distorted);
      for (std::size_t depth = 0; arguments.layers && depth < found.layers.size(); ++depth) {
        row += "\t" + format_distance(found.layers[depth]);
      }
      write(row + "\n", distances.size());
      timing.mark("score");
      distances.push_back(static_cast<double>(distance));
      notes.add(remarks, pair);
      if (distance > worst) {
        worst = distance;
        worst_pair = pair;
      }
      // As it is printed: the float behind 0.1 is larger than the double.
      above += arguments.fail_above && std::stod(format_distance(distance)) > *arguments.fail_above;
    } catch (const ImageError& error) {
      ++failed;
      say("error: " + pair + ": " + error.what());
    } catch (const lpips::Error& error) {
      ++failed;
      say("error: " + pair + ": " + error.what());
    }
  }
  notes.tell();
  if (!single) say(summary(distances, failed, options.provider.substr(0, options.provider.find(':'))));
  if (above > 0) {
    const std::string found = format_distance(worst);
    say("above " + shortened(*arguments.fail_above, 9) + ": " +
        (single ? found
                : std::to_string(above) + " of " + std::to_string(distances.size() + failed) + " pairs, the worst " + found +
                      " for " + worst_pair));
  }
  if (arguments.timing) {
    timing.tell();
    tell_of_opening(model);
  }
  if (failed > 0) return 3;
  return above > 0 ? 1 : 0;
}

// What the Python command exits with for the same error: 2 the call was wrong, 3 the work failed.
int exit_code(lpips::Code code) {
  switch (code) {
    case lpips::Code::usage:
    case lpips::Code::unknown_provider:
    case lpips::Code::model_not_found:
      return 2;
    default:
      return 3;
  }
}

}  // namespace

int main(int count, char** given) {
  try {
    return run(count, given);
  } catch (const Ended& ended) {
    if (!ended.message.empty()) say("error: " + ended.message);
    return ended.code;
  } catch (const lpips::Error& error) {
    say("error: " + std::string(error.what()));
    return exit_code(error.code());
  } catch (const std::exception& error) {
    say("error: unexpected " + std::string(error.what()) + "; please report it");
    return 3;
  }
}
