#include <algorithm>
#include <array>
#include <vector>

#include "parts.hpp"

namespace {

// Each scan costs time for every pixel but may be some bytes long; encoders write about ten.
constexpr int most_scans = 100;

struct Component {
  std::uint32_t id = 0;
  std::uint32_t across = 0;  // sampling factors
  std::uint32_t down = 0;
  std::uint32_t table = 0;  // of quantisation
  bool begun = false;       // a scan of it is there; of a progressive one, the first of its averages
};

std::uint64_t divided_up(std::uint64_t value, std::uint64_t by) { return (value + by - 1) / by; }

// The segments of the primary picture, in the order in which stb reads them: so what a scan needs is known to be there.
class Walk {
 public:
  Walk(std::string_view data, Found& found, std::int64_t limit) : data_(data), found_(found), limit_(limit) {}

  void walk() {
    std::size_t at = 2;
    for (;;) {
      if (at + 1 >= data_.size()) damaged("JPEG", "it ends too early");
      if (data_[at] != '\xff') damaged("JPEG", "bytes between its segments");
      const std::uint32_t marker = number(data_, at + 1, 1);
      if (marker == 0xff) {  // a filler
        ++at;
        continue;
      }
      if (marker == 0xd9) break;
      if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd8)) damaged("JPEG", "no valid marker");
      if (data_.size() - at < 4) damaged("JPEG", "it ends too early");
      const std::size_t length = number(data_, at + 2, 2);
      if (length < 2 || length > data_.size() - at - 2) damaged("JPEG", "it ends too early");
      segment(marker, data_.substr(at + 4, length - 2));
      at += 2 + length;
      if (marker == 0xda) at = skip_scan(at);
    }
    if (scans_ == 0) damaged("JPEG", "no picture in it");
    for (const Component& component : components_) {
      if (!component.begun) damaged("JPEG", "a colour without a scan");
    }
  }

 private:
  void segment(std::uint32_t marker, std::string_view content) {
    if (marker == 0xc4) {
      huffman_tables(content);
    } else if (marker == 0xdb) {
      quantisation_tables(content);
    } else if (marker == 0xdd) {
      if (content.size() != 2) damaged("JPEG", "no valid restart interval");
      interval_ = number(content, 0, 2);
    } else if (marker == 0xda) {
      scan(content);
    } else if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc8 && marker != 0xcc) {
      frame(marker, content);
    } else {
      application(marker, content);
    }
  }

  void application(std::uint32_t marker, std::string_view content) {
    if (marker == 0xee && begins(content, "Adobe") && content.size() >= 12) {
      if (content[5] != 0 || scans_ > 0) damaged("JPEG", "no valid mark of Adobe's");
      luminance_ = luminance_ || content[11] != 0;
    }
    if (scans_ > 0) return;  // later ones do not count
    if (marker == 0xe0 && begins(content, std::string_view("JFIF\0", 5))) luminance_ = true;
    constexpr std::string_view xmp_mark("http://ns.adobe.com/xap/1.0/\0", 29);
    if (marker == 0xe1 && begins(content, exif_mark)) {
      if (found_.exif) content.remove_prefix(exif_mark.size());  // goes on where the one before ended
      found_.exif = found_.exif.value_or("") += content;
    }
    if (marker == 0xe1 && begins(content, xmp_mark)) found_.xmp = content.substr(xmp_mark.size());
    if (marker == 0xe2 && begins(content, std::string_view("ICC_PROFILE\0", 12))) found_.icc = true;
    if (marker == 0xe2 && begins(content, std::string_view("MPF\0", 4))) found_.mpo = true;
  }

  void frame(std::uint32_t marker, std::string_view content) {
    if (content.size() < 6 || !components_.empty()) damaged("JPEG", "no valid header");
    const std::uint32_t bits = number(content, 0, 1), count = number(content, 5, 1);
    if (bits != 8) throw Refused{"holds " + std::to_string(bits) + "-bit values; convert it to 8-bit RGB first"};
    if (count == 4) throw Refused{"holds CMYK inks; convert it to 8-bit RGB first"};
    if (marker > 0xc2) throw Refused{"is a JPEG of a rare kind (lossless or arithmetic); write it as a usual one"};
    if ((count != 1 && count != 3) || content.size() != 6 + 3 * count) damaged("JPEG", "no valid header");
    height_ = number(content, 1, 2);
    width_ = number(content, 3, 2);
    check_pixels(width_, height_, limit_, "JPEG");
    progressive_ = marker == 0xc2;
    for (std::size_t at = 6; at < content.size(); at += 3) {
      const std::uint32_t factors = number(content, at + 1, 1);
      const Component component{number(content, at, 1), factors >> 4, factors & 15, number(content, at + 2, 1), false};
      if (find(component.id) != nullptr || component.across < 1 || component.across > 4 || component.down < 1 ||
          component.down > 4 || component.table > 3) {
        damaged("JPEG", "no valid header");
      }
      components_.push_back(component);
      most_across_ = std::max(most_across_, component.across);
      most_down_ = std::max(most_down_, component.down);
    }
  }

  void quantisation_tables(std::string_view content) {
    for (std::size_t at = 0; at < content.size();) {
      const std::uint32_t precision = number(content, at, 1) >> 4, table = number(content, at, 1) & 15;
      const std::size_t length = precision == 0 ? 65 : 129;
      if (precision > 1 || table > 3 || length > content.size() - at) damaged("JPEG", "no valid quantisation table");
      quantisation_[table] = true;
      at += length;
    }
  }

  void huffman_tables(std::string_view content) {
    for (std::size_t at = 0; at < content.size();) {
      const std::uint32_t kind = number(content, at, 1) >> 4, table = number(content, at, 1) & 15;
      if (kind > 1 || table > 3 || content.size() - at < 17) damaged("JPEG", "no valid Huffman table");
      std::size_t codes = 0;
      for (std::size_t k = 1; k <= 16; ++k) codes += number(content, at + k, 1);
      if (codes > 256 || codes > content.size() - at - 17) damaged("JPEG", "no valid Huffman table");
      (kind == 0 ? averages_ : details_)[table] = true;
      at += 17 + codes;
    }
  }

  Component* find(std::uint32_t id) {
    const auto found = std::find_if(components_.begin(), components_.end(), [&](const Component& c) { return c.id == id; });
    return found == components_.end() ? nullptr : &*found;
  }

  void scan(std::string_view content) {
    if (components_.empty()) damaged("JPEG", "a scan without a header");
    if (++scans_ > most_scans) damaged("JPEG", "more than 100 scans");
    if (components_.size() == 3 && components_[0].id == 'R' && components_[1].id == 'G' && components_[2].id == 'B' &&
        luminance_) {
      damaged("JPEG", "it contradicts itself on its colours");
    }
    const std::size_t count = content.empty() ? 0 : number(content, 0, 1);
    if (count < 1 || count > components_.size() || content.size() != 4 + 2 * count) damaged("JPEG", "no valid scan");
    const std::uint32_t start = number(content, 1 + 2 * count, 1), end = number(content, 2 + 2 * count, 1);
    const bool first = number(content, 3 + 2 * count, 1) >> 4 == 0;
    if (progressive_ && ((start == 0) != (end == 0) || (start > 0 && count > 1))) damaged("JPEG", "no valid scan");
    std::array<const Component*, 3> named{};
    for (std::size_t k = 0; k < count; ++k) {
      Component* component = find(number(content, 1 + 2 * k, 1));
      if (component == nullptr || std::count(named.begin(), named.end(), component) > 0) damaged("JPEG", "no valid scan");
      named[k] = component;
      const std::uint32_t tables = number(content, 2 + 2 * k, 1);
      if (!quantisation_[component->table]) damaged("JPEG", "a scan without its quantisation table");
      const bool averages = !progressive_ || (start == 0 && first), details = !progressive_ || start > 0;
      if ((averages && !is_there(averages_, tables >> 4)) || (details && !is_there(details_, tables & 15))) {
        throw Refused{"is a JPEG without a Huffman table that it uses, like frames of Motion JPEG; write it as a whole one"};
      }
      if (progressive_ && component->begun == averages) damaged("JPEG", "its scans are in no valid order");
      component->begun = true;
    }
    restarts_ = interval_ == 0 ? 0 : (units(named[0], count) - 1) / interval_;
  }

  static bool is_there(const std::array<bool, 4>& tables, std::uint32_t table) { return table < 4 && tables[table]; }

  // In how many units a scan is coded: blocks of a single component, else groups of blocks of all.
  std::uint64_t units(const Component* only, std::size_t count) const {
    if (count > 1) return divided_up(width_, 8 * most_across_) * divided_up(height_, 8 * most_down_);
    return divided_up(divided_up(std::uint64_t{width_} * only->across, most_across_), 8) *
           divided_up(divided_up(std::uint64_t{height_} * only->down, most_down_), 8);
  }

  // -> where the next segment begins. Within a scan FF is followed by 0 or is part of a restart marker; where one of these
  // is missing stb leaves the rest undecoded.
  std::size_t skip_scan(std::size_t at) const {
    std::uint64_t restarts = 0;
    for (;;) {
      at = data_.find('\xff', at);
      if (at == std::string_view::npos || at + 1 >= data_.size()) damaged("JPEG", "it ends too early");
      const std::uint32_t next = number(data_, at + 1, 1);
      if (next == 0xff) {
        ++at;
        continue;
      }
      if (next != 0 && (next < 0xd0 || next > 0xd7)) break;
      if (next != 0 && (next & 7) != (restarts++ & 7)) damaged("JPEG", "its restart markers are in no valid order");
      at += 2;
    }
    if (restarts < restarts_) damaged("JPEG", "a scan ends too early");
    return at;
  }

  std::string_view data_;
  Found& found_;
  std::int64_t limit_;
  std::uint32_t width_ = 0;
  std::uint32_t height_ = 0;
  std::uint32_t most_across_ = 1;
  std::uint32_t most_down_ = 1;
  bool progressive_ = false;
  bool luminance_ = false;  // by a mark, the colours are luminance and chrominance, whatever they are called
  std::vector<Component> components_{};
  std::array<bool, 4> quantisation_{};  // which tables are defined
  std::array<bool, 4> averages_{};
  std::array<bool, 4> details_{};
  std::uint32_t interval_ = 0;
  std::uint64_t restarts_ = 0;  // markers that the present scan needs
  int scans_ = 0;
};

}  // namespace

void walk_jpeg(std::string_view data, Found& found, std::int64_t limit) { Walk(data, found, limit).walk(); }
