#include "shm/key_table.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <boost/interprocess/anonymous_shared_memory.hpp>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include <tokcask/error.h>

#include "os/clock.h"
#include "os/descriptor.h"

namespace tokcask::shm {

namespace fs = std::filesystem;
namespace ipc = boost::interprocess;

namespace {

constexpr std::size_t kBlockBytes = 4096;
constexpr std::uint32_t kVersion = 3;
constexpr char kMagic[8] = {'t', 'o', 'k', 'c', 'a', 's', 'k', 'K'};
constexpr std::string_view kPrefix = "keys-";
constexpr std::string_view kSuffix = ".shm";

using KeysHash = std::array<std::uint8_t, 16>;

KeysHash hash_of(std::span<const std::byte> keys) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(keys.data(), keys.size()));
  KeysHash hash;
  std::memcpy(hash.data(), canonical.digest, hash.size());
  return hash;
}

fs::path file_of(const fs::path& directory, const KeysHash& hash) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string name(kPrefix);
  for (const std::uint8_t byte : hash) {
    name.push_back(kDigits[byte >> 4]);
    name.push_back(kDigits[byte & 15]);
  }
  return directory / name.append(kSuffix);
}

bool write_all(int fd, const void* data, std::size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

// The checksum of what lies in a file from block 1 on, read in pieces: mapped pages would count as this
// process's memory.
std::uint64_t checksum_of_body(int fd, std::size_t size) {
  std::vector<std::byte> piece(std::size_t{256} << 10);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  if (!state) throw std::bad_alloc();
  XXH3_64bits_reset(state.get());
  for (std::size_t at = 0; at < size;) {
    const ssize_t n =
        pread(fd, piece.data(), std::min(piece.size(), size - at), static_cast<off_t>(kBlockBytes + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return 0;
    XXH3_64bits_update(state.get(), piece.data(), static_cast<std::size_t>(n));
    at += static_cast<std::size_t>(n);
  }
  return XXH3_64bits_digest(state.get());
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Removes `file` if `fd` is it and nobody else holds it.
void remove_if_unused(int fd, const fs::path& file) {
  struct stat ours{};
  struct stat there{};
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) return;
  if (fstat(fd, &ours) == 0 && stat(file.c_str(), &there) == 0 && same_file(ours, there))
    unlink(file.c_str());
}

}  // namespace

struct KeyTable::Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t zero;
  Uuid store;
  KeysHash keys_hash;
  std::uint64_t keys;
  std::uint64_t packed_bytes;
  std::uint64_t txnid;
  std::int64_t data_mtime_ns;
  std::uint64_t body_checksum;
  std::uint64_t checksum;

  [[nodiscard]] std::uint64_t own_checksum() const { return XXH3_64bits(this, offsetof(Header, checksum)); }
  [[nodiscard]] std::size_t packed_at() const { return keys * sizeof(Place); }
  [[nodiscard]] std::size_t body_bytes() const { return packed_at() + packed_bytes; }
};

// Not by std::filesystem, whose iterators of libstdc++ 12 end the process when memory runs out.
void KeyTable::remove_unused(const fs::path& directory, const Uuid& store, std::uint64_t keep_bytes) {
  struct Kept {
    std::int64_t made_ns;
    std::uint64_t bytes;
    fs::path file;
  };
  std::vector<Kept> kept;
  const auto close = [](DIR* open) { closedir(open); };
  const std::unique_ptr<DIR, decltype(close)> stream(opendir(directory.c_str()), close);
  while (const dirent* const entry = stream ? readdir(stream.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    if (!name.starts_with(kPrefix) || name.find(kSuffix) == std::string_view::npos) continue;
    fs::path file = directory / name;
    const os::Descriptor fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd.get() < 0) continue;
    Header header{};
    struct stat status{};
    if (name.ends_with(kSuffix) && fstat(fd.get(), &status) == 0 &&
        pread(fd.get(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header) &&
        header.version == kVersion && header.store == store) {
      kept.push_back(
          {os::ns_of(status.st_mtim), static_cast<std::uint64_t>(status.st_size), std::move(file)});
    } else {
      remove_if_unused(fd.get(), file);
    }
  }
  std::sort(kept.begin(), kept.end(), [](const Kept& a, const Kept& b) { return a.made_ns > b.made_ns; });
  std::uint64_t bytes = 0;
  for (const Kept& table : kept) {
    bytes += table.bytes;
    if (bytes <= keep_bytes) continue;
    const os::Descriptor fd(open(table.file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd.get() >= 0) remove_if_unused(fd.get(), table.file);
  }
}

struct KeyTable::Mapping {
  ipc::file_mapping file;
  ipc::mapped_region region;
};

void KeyTable::point_into(const std::byte* base, const Header& header) noexcept {
  store_ = header.store;
  txnid_ = header.txnid;
  data_mtime_ns_ = header.data_mtime_ns;
  places_ = {reinterpret_cast<const Place*>(base), header.keys};
  keys_ = {base + header.packed_at(), header.packed_bytes};
}

std::unique_ptr<KeyTable> KeyTable::attach(const fs::path& directory, const Uuid& store,
                                           std::span<const std::byte> keys, std::uint64_t keep_bytes) {
  static_assert(sizeof(Header) <= kBlockBytes);
  std::unique_ptr<KeyTable> table(new KeyTable);
  table->keep_bytes_ = keep_bytes;
  const KeysHash hash = hash_of(keys);
  table->file_ = file_of(directory, hash);
  // Opening a FIFO would wait for somebody to write to it.
  struct stat there{};
  if (lstat(table->file_.c_str(), &there) != 0 || !S_ISREG(there.st_mode)) return nullptr;
  try {
    auto mapping = std::make_unique<Mapping>();
    mapping->file = ipc::file_mapping(table->file_.c_str(), ipc::read_only);
    const int fd = mapping->file.get_mapping_handle().handle;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    // The lock first, so that nobody removes it from here on; if it was removed before, it is still good.
    if (flock(fd, LOCK_SH | LOCK_NB) != 0) return nullptr;
    Header header{};
    struct stat status{};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        pread(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
        std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.version != kVersion ||
        header.own_checksum() != header.checksum || header.store != store || header.keys_hash != hash ||
        header.packed_bytes != keys.size() ||
        header.keys > static_cast<std::uint64_t>(status.st_size) / sizeof(Place) ||
        static_cast<std::uint64_t>(status.st_size) != kBlockBytes + header.body_bytes() ||
        checksum_of_body(fd, header.body_bytes()) != header.body_checksum) {
      return nullptr;
    }
    mapping->region = ipc::mapped_region(mapping->file, ipc::read_only, 0, kBlockBytes + header.body_bytes());
    table->point_into(static_cast<const std::byte*>(mapping->region.get_address()) + kBlockBytes, header);
    table->mapping_ = std::move(mapping);
    return table;
  } catch (const ipc::interprocess_exception&) {
    return nullptr;  // none there, or no address space for it
  }
}

std::unique_ptr<KeyTable> KeyTable::publish(const fs::path& directory, const KeyTableContent& content) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.store = content.store;
  header.keys_hash = hash_of(content.keys);
  header.keys = content.places.size();
  header.packed_bytes = content.keys.size();
  header.txnid = content.txnid;
  header.data_mtime_ns = content.data_mtime_ns;
  std::vector<std::byte> body(header.body_bytes());
  const auto copy = [&](std::size_t at, const void* from, std::size_t size) {
    if (size > 0) std::memcpy(body.data() + at, from, size);
  };
  copy(0, content.places.data(), content.places.size_bytes());
  copy(header.packed_at(), content.keys.data(), content.keys.size());
  header.body_checksum = XXH3_64bits(body.data(), body.size());
  header.checksum = header.own_checksum();

  remove_unused(directory, content.store, content.keep_bytes);
  const fs::path file = file_of(directory, header.keys_hash);
  fs::path fresh = file;
  fresh += '.' + std::to_string(getpid());
  std::string why;
  {
    unlink(fresh.c_str());
    const os::Descriptor fd(open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    std::vector<std::byte> block(kBlockBytes);
    std::memcpy(block.data(), &header, sizeof header);
    if (fd.get() < 0 || flock(fd.get(), LOCK_SH | LOCK_NB) != 0 ||
        !write_all(fd.get(), block.data(), block.size()) || !write_all(fd.get(), body.data(), body.size()) ||
        rename(fresh.c_str(), file.c_str()) != 0) {
      why = std::strerror(errno);
      if (fd.get() >= 0) unlink(fresh.c_str());
    } else if (auto table = attach(directory, content.store, content.keys, content.keep_bytes)) {
      return table;
    } else {
      why = "it cannot be mapped";
    }
  }
  std::unique_ptr<KeyTable> table(new KeyTable);
  table->why_private_ = std::move(why);
  table->mapping_ = std::make_unique<Mapping>();
  try {
    table->mapping_->region = ipc::anonymous_shared_memory(std::max<std::size_t>(body.size(), 1));
  } catch (const ipc::interprocess_exception& error) {
    throw Error(Errc::kIo, std::string("cannot map memory for the table of a data set: ") + error.what());
  }
  auto* const base = static_cast<std::byte*>(table->mapping_->region.get_address());
  if (!body.empty()) std::memcpy(base, body.data(), body.size());
  table->point_into(base, header);
  return table;
}

KeyTable::~KeyTable() {
  if (file_.empty() || !mapping_) return;
  mapping_.reset();
  try {
    // Forked workers end without this; what they made is looked at with their parent's.
    remove_unused(file_.parent_path(), store_, keep_bytes_);
  } catch (const std::exception&) {
    // The next one does.
  }
}

}  // namespace tokcask::shm
