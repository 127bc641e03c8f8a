// The CPU: how many threads are right for one process, and what INT8 needs to be exact. lpips_runtime/cpu.py is the same.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#if defined(__linux__)
#include <sched.h>
#endif

namespace lpips::detail {

namespace cpu {

inline std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Cores' worth of time that the control groups of this process allow, `most` without a limit. Of a group's limit, that
// of the groups around it counts too, and a container sees its own group as the root: all folders above are tried.
inline double allowed_time(double most) {
  std::ifstream own("/proc/self/cgroup");
  for (std::string line; std::getline(own, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    std::string group = line.substr(second + 1);
    for (;;) {
      const std::string folder = "/sys/fs/cgroup/" + controllers + group + "/";
      double quota = 0, period = 0;
      std::istringstream limit(unified ? first_line(folder + "cpu.max")
                                       : first_line(folder + "cpu.cfs_quota_us") + " " +
                                             first_line(folder + "cpu.cfs_period_us"));
      if (limit >> quota >> period && quota > 0 && period > 0) most = std::min(most, quota / period);
      const std::size_t last = group.rfind('/');
      if (last == std::string::npos) break;
      group.erase(last);
    }
  }
  return most;
}

}  // namespace cpu

// Physical cores that this process may use, or the time on them if a container allows less; 0 where the system does not
// say, for ONNX Runtime's own choice, which is all cores of the machine.
inline int default_threads() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;  // more CPUs than the set has room for
  std::set<std::string> cores;
  for (int number = 0; number < CPU_SETSIZE; ++number) {
    if (!CPU_ISSET(number, &allowed)) continue;
    const std::string name = std::to_string(number);
    const std::string siblings =
        cpu::first_line("/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? name : siblings);
  }
  return static_cast<int>(std::max(1.0, cpu::allowed_time(static_cast<double>(cores.size()))));
#else
  return 0;
#endif
}

// Whether INT8 saturates in the fast kernels for x86: without VNNI they add two products in 16 bits. Where the system
// does not say: rather slow than wrong.
inline bool int8_saturates() {
#if defined(__linux__)
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("flags", 0) == 0) return line.find("vnni") == std::string::npos;
  }
#endif
  return true;
}

}  // namespace lpips::detail
