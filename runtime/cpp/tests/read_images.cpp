// Reads each file that is named: the pixels go to NAME.ppm, and a line says which notes there are or what is wrong.
#include <cstdio>
#include <fstream>

#include "image_file.hpp"

int main(int count, char** names) {
  for (int k = 1; k < count; ++k) {
    const std::string name = names[k];
    try {
      const Picture picture = load_image(name);
      std::ofstream out(name + ".ppm", std::ios::binary);
      out << "P6 " << picture.width << " " << picture.height << " 255\n";
      out.write(reinterpret_cast<const char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
      out.close();
      if (!out) return 1;
      std::string line = "read:";
      for (const auto& note : picture.notes) line += " " + note.first;
      std::puts(line.c_str());
    } catch (const ImageError& error) {
      std::puts(error.what());
    }
  }
  return 0;
}
