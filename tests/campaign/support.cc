#include "support.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

namespace tokcask::campaign {

namespace {

const std::filesystem::path kMemory = "/dev/shm";

}  // namespace

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t number = a * 0x9e3779b97f4a7c15U + b + 1;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9U;
  number = (number ^ (number >> 27)) * 0x94d049bb133111ebU;
  return number ^ (number >> 31);
}

std::uint64_t below(Random& random, std::uint64_t end) {
  return std::uniform_int_distribution<std::uint64_t>(0, end - 1)(random);
}

std::uint64_t default_seed() {
  if (const char* const given = std::getenv("TOKCASK_TEST_SEED")) return std::strtoull(given, nullptr, 0);
  return std::random_device{}();
}

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> parts;
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    parts.push_back(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return parts;
}

Directory::Directory(bool keep) : keep_(keep) {
  const bool memory = std::getenv("TMPDIR") == nullptr && access(kMemory.c_str(), W_OK) == 0;
  std::string path = (memory ? kMemory : std::filesystem::temp_directory_path()) / "tokcask-campaign-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("cannot make a directory as " + path);
  path_ = path;
}

Directory::~Directory() {
  std::error_code ignored;
  if (!keep_) std::filesystem::remove_all(path_, ignored);
}

bool Content::is(const TokenView& view) const {
  const auto ones = [](std::int32_t value) { return value == 1; };
  return std::ranges::equal(view.input_ids(), ids) && view.attention_mask().size() == ids.size() &&
         (mask.empty() ? std::ranges::all_of(view.attention_mask(), ones)
                       : std::ranges::equal(view.attention_mask(), mask));
}

Content content_of(std::uint64_t number, std::uint64_t version, std::size_t length, bool masked) {
  Content content;
  content.ids.resize(length);
  const std::uint64_t seed = mix(number, version);
  for (std::size_t i = 0; i < length; ++i) content.ids[i] = static_cast<std::int32_t>(mix(seed, i) >> 40);
  if (length > 0) content.ids[0] = static_cast<std::int32_t>(version);
  if (masked && length > 0) {
    content.mask.resize(length);
    for (std::size_t i = 0; i < length; ++i) content.mask[i] = static_cast<std::int32_t>(mix(seed, i) % 2);
    content.mask[length / 2] = 0;  // not all ones
  }
  return content;
}

CacheKey key_of(std::uint64_t number, char tokenizer, std::int64_t sequence_len) {
  return CacheKey(fmt::format("{:016x}{:016x}", mix(number, 77), mix(number, 78)), std::string(64, tokenizer),
                  sequence_len);
}

void* map_shared(std::size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no shared memory");
  return memory;
}

void unmap_shared(void* memory, std::size_t bytes) noexcept { munmap(memory, bytes); }

pid_t start(const std::function<int()>& act) {
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kThrew);
  int code = kThrew;
  try {
    code = act();
  } catch (const std::exception& error) {
    fmt::print(stderr, "child: {}\n", error.what());
  }
  std::fflush(nullptr);
  _exit(code);
}

End wait_for(pid_t child, std::chrono::milliseconds limit, const std::function<void()>& meanwhile) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  End end;
  int status = 0;
  for (std::chrono::microseconds pause{50}; waitpid(child, &status, WNOHANG) == 0;) {
    if (meanwhile) meanwhile();
    if (!end.hung && std::chrono::steady_clock::now() >= deadline) {
      end.hung = true;
      kill(child, SIGKILL);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(500));
  }
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  if (WIFEXITED(status)) end.code = WEXITSTATUS(status);
  return end;
}

}  // namespace tokcask::campaign
