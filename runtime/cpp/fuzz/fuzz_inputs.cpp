// Whatever a caller says of an image, and whatever a model's file holds, is an Error or is taken; never undefined
// behaviour. The first byte chooses.
#include <cstring>
#include <limits>
#include <lpips/detail/core.hpp>

namespace {

// Takes numbers off the front of the input, zeros once it is used up.
class Numbers {
 public:
  Numbers(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  std::uint64_t next(std::size_t bytes) {
    std::uint64_t value = 0;
    const std::size_t taken = std::min(bytes, size_);
    std::memcpy(&value, data_, taken);
    data_ += taken;
    size_ -= taken;
    return value;
  }

  // Small as often as not, else anything.
  std::uint64_t side() {
    const std::uint64_t kind = next(1);
    return kind < 160 ? next(1) % 96 : next(8) >> (kind % 64);
  }

  const std::uint8_t* rest() const { return data_; }
  std::size_t left() const { return size_; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

void take_images(Numbers numbers) {
  lpips::ModelInfo info;
  const std::uint64_t flags = numbers.next(1);
  info.net = "vgg";
  info.min_size = 1 + static_cast<int>(flags & 15);
  info.input = (flags & 16) != 0 ? "uint8" : "float32";
  lpips::Image images[2];
  for (lpips::Image& image : images) {
    image.width = static_cast<std::int64_t>(numbers.side());
    image.height = static_cast<std::int64_t>(numbers.side());
    image.stride = static_cast<std::size_t>(numbers.side());
    image.format = static_cast<lpips::Format>(static_cast<int>(numbers.next(1) % 20) - 1);
  }
  if ((flags & 32) != 0) {
    images[1] = images[0];
    if ((flags & 64) != 0) images[1].stride = 0;
  }
  // Memory of exactly as many bytes as are promised, so that a read beyond them shows.
  const std::size_t room = numbers.next(2);
  std::vector<std::uint8_t> data(room);
  for (std::size_t k = 0; k < room && numbers.left() > 0; ++k) data[k] = numbers.rest()[k % numbers.left()];
  data.shrink_to_fit();
  for (lpips::Image& image : images) {
    image.data = data.data();
    image.bytes = data.size();
  }
  lpips::detail::check_pairs(images, 1, images + 1, 1, info);
  for (const lpips::Image& image : images) {
    const lpips::detail::Batch batch = lpips::detail::make_batch(&image, 1, info, "image");
    for (const float value : batch.floats) {
      if (!(value >= -1 && value <= 1)) std::abort();
    }
  }
  const lpips::detail::Batch both = lpips::detail::make_batch(images, 2, info, "image");
  if (both.floats.size() + both.bytes.size() != static_cast<std::size_t>(6 * both.width * both.height)) std::abort();
}

void read_file(std::string_view data) {
  const lpips::ModelInfo info = lpips::detail::read_info(lpips::detail::read_metadata(data, "x.onnx"), "x.onnx");
  if (info.min_size < 1 || info.stride < 1 || info.halo < 1 || !(info.eps > 0)) std::abort();
  if (lpips::detail::is_sealed(data, info.content_sha256)) std::abort();  // nobody finds a seal by chance
}

// Metadata, each entry given as text, with a graph before it.
void read_entries(Numbers numbers) {
  lpips::detail::Metadata metadata;
  static const char* const keys[] = {"format", "kind",   "net",  "version", "lin", "precision",       "target",     "input",
                                     "min_size", "stride", "halo", "eps",     "exporter", "backbone_sha256", "lin_sha256", "license",
                                     "reference", "content_sha256"};
  static const char* const values[] = {"1",     "pair", "alex", "0.1", "learned", "fp32", "",         "float32", "31", "16",
                                       "96",    "1e-10", "e",    "b",   "l",       "n",    "r",        "c"};
  for (std::size_t k = 0; k < 18; ++k) metadata[std::string("lpips.") + keys[k]] = values[k];
  for (int changes = 0; numbers.left() > 2 && changes < 4; ++changes) {
    const std::string key = std::string("lpips.") + keys[numbers.next(1) % 18];
    const std::size_t length = std::min<std::size_t>(numbers.next(1) % 24, numbers.left());
    metadata[key] = std::string(reinterpret_cast<const char*>(numbers.rest()), length);
    for (std::size_t k = 0; k < length; ++k) numbers.next(1);
  }
  const lpips::ModelInfo info = lpips::detail::read_info(metadata, "x.onnx");
  if (info.min_size < lpips::detail::net_of(info).smallest || !(info.eps > 0 && info.eps < 1)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  Numbers numbers(data + 1, size - 1);
  try {
    switch (data[0] % 3) {
      case 0:
        take_images(numbers);
        break;
      case 1:
        read_file({reinterpret_cast<const char*>(data + 1), size - 1});
        break;
      default:
        read_entries(numbers);
        break;
    }
  } catch (const lpips::Error& error) {
    const std::string message = error.what();
    if (message.empty() || message.find('\n') != std::string::npos) std::abort();
  }
  return 0;
}
