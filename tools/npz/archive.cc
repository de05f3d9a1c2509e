#include "npz/archive.h"

#include <zip.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <tokcask/error.h>

#include "npz/npy.h"

namespace tokcask::npz {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 16;

Error damaged(const std::string& why) { return Error(Errc::kDamaged, why); }
Error malformed(const std::string& why) { return Error(Errc::kInvalidArgument, why); }

struct CloseArchive {
  void operator()(zip_t* archive) const { zip_discard(archive); }  // never written back
};
struct CloseMember {
  void operator()(zip_file_t* member) const { zip_fclose(member); }
};
using Archive = std::unique_ptr<zip_t, CloseArchive>;

Archive open_archive(corpus::UniqueFd file) {
  int code = 0;
  Archive archive(zip_fdopen(file.get(), ZIP_CHECKCONS, &code));
  if (archive) {
    static_cast<void>(file.release());
    return archive;
  }
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string why = zip_error_strerror(&error);
  zip_error_fini(&error);
  throw damaged(fmt::format("is no intact zip archive: {}", why));
}

// One file of an archive, read from start to end.
class Member {
 public:
  Member(zip_t* archive, const char* name) : name_(name) {
    const zip_int64_t index = zip_name_locate(archive, name, ZIP_FL_ENC_RAW);
    if (index < 0) throw malformed(fmt::format("has no {}", name));
    zip_stat_t status;
    zip_stat_init(&status);
    const auto number = static_cast<zip_uint64_t>(index);
    if (zip_stat_index(archive, number, 0, &status) != 0) throw damaged(said(zip_get_error(archive)));
    if ((status.valid & ZIP_STAT_SIZE) != 0) size_ = status.size;
    file_.reset(zip_fopen_index(archive, number, 0));
    if (!file_) throw damaged(said(zip_get_error(archive)));
  }

  // As the archive's directory says.
  [[nodiscard]] std::uint64_t size() const { return size_; }

  // Fills `out`.
  void read(char* out, std::size_t bytes) {
    while (bytes > 0) {
      const zip_int64_t count = zip_fread(file_.get(), out, bytes);
      if (count < 0) throw damaged(said(zip_file_get_error(file_.get())));
      if (count == 0) throw damaged(fmt::format("has a {} that ends too early", name_));
      out += count;
      bytes -= static_cast<std::size_t>(count);
    }
  }
  // Nothing may follow. At the end libzip compares the checksum.
  void finish() {
    char byte = 0;
    const zip_int64_t count = zip_fread(file_.get(), &byte, 1);
    if (count < 0) throw damaged(said(zip_file_get_error(file_.get())));
    if (count > 0) throw malformed(fmt::format("has a {} that goes on behind its array", name_));
  }

 private:
  [[nodiscard]] std::string said(zip_error_t* error) const {
    return fmt::format("has a {} that cannot be read: {}", name_, zip_error_strerror(error));
  }

  const char* name_;
  std::uint64_t size_ = ~std::uint64_t{0};
  std::unique_ptr<zip_file_t, CloseMember> file_;
};

template <typename T>
void append(const char* bytes, std::size_t count, bool swap, std::vector<std::int32_t>& out) {
  for (std::size_t i = 0; i < count; ++i) {
    std::array<char, sizeof(T)> item;
    std::memcpy(item.data(), bytes + i * sizeof(T), sizeof(T));
    if (swap) std::reverse(item.begin(), item.end());
    T value;
    std::memcpy(&value, item.data(), sizeof value);
    if (!std::in_range<std::int32_t>(value)) {
      throw malformed(fmt::format("holds the value {}, which does not fit into 32 bits", value));
    }
    out.push_back(static_cast<std::int32_t>(value));
  }
}

void append(const NpyArray& array, const char* bytes, std::size_t count, std::vector<std::int32_t>& out) {
  const bool swap = array.big_endian;
  switch (array.item_bytes) {
    case 1:
      return array.is_signed ? append<std::int8_t>(bytes, count, swap, out)
                             : append<std::uint8_t>(bytes, count, swap, out);
    case 2:
      return array.is_signed ? append<std::int16_t>(bytes, count, swap, out)
                             : append<std::uint16_t>(bytes, count, swap, out);
    case 4:
      return array.is_signed ? append<std::int32_t>(bytes, count, swap, out)
                             : append<std::uint32_t>(bytes, count, swap, out);
    default:
      return array.is_signed ? append<std::int64_t>(bytes, count, swap, out)
                             : append<std::uint64_t>(bytes, count, swap, out);
  }
}

NpyArray read_header(Member& member) {
  std::array<char, kNpyPrefixBytes> prefix;
  member.read(prefix.data(), prefix.size());
  const std::size_t length_bytes = npy_length_bytes({prefix.data(), prefix.size()});
  std::array<char, 4> length{};
  member.read(length.data(), length_bytes);
  std::size_t header_bytes = 0;
  for (std::size_t i = length_bytes; i-- > 0;) {
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(length[i]);
  }
  if (header_bytes > kMaxNpyHeaderBytes) throw malformed("has a NumPy header that is too long");
  std::string text(header_bytes, '\0');
  member.read(text.data(), text.size());
  const NpyArray array = parse_npy_header(text);
  if (array.count > kMaxArrayItems) {
    throw malformed(fmt::format("has an array of {} items, which is too large", array.count));
  }
  const std::uint64_t expected =
      kNpyPrefixBytes + length_bytes + header_bytes + array.count * array.item_bytes;
  if (member.size() != expected) throw malformed("has an array that is not as large as its header says");
  return array;
}

std::vector<std::int32_t> read_array(zip_t* archive, const char* name) {
  Member member(archive, name);
  const NpyArray array = read_header(member);
  std::vector<std::int32_t> values;
  std::array<char, kBlockBytes> block;
  const std::size_t most = kBlockBytes / array.item_bytes;
  for (std::uint64_t left = array.count; left > 0;) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left, most));
    member.read(block.data(), count * array.item_bytes);
    append(array, block.data(), count, values);
    left -= count;
  }
  member.finish();
  return values;
}

}  // namespace

Arrays read_npz(corpus::UniqueFd file) {
  const Archive archive = open_archive(std::move(file));
  Arrays arrays;
  arrays.input_ids = read_array(archive.get(), "input_ids.npy");
  arrays.attention_mask = read_array(archive.get(), "attention_mask.npy");
  if (arrays.attention_mask.size() != arrays.input_ids.size()) {
    throw malformed(fmt::format("has {} ids and {} elements of the mask", arrays.input_ids.size(),
                                arrays.attention_mask.size()));
  }
  return arrays;
}

}  // namespace tokcask::npz
