#include "zip_bytes.h"

#include <cstring>

#include <fmt/format.h>

namespace tokcask::test {
namespace {

std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (0xEDB88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

void add(std::string& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

// From the version that is needed to the length of the extra field: what both headers of a member have.
std::string common(const ZipMember& member) {
  std::string out;
  add(out, 20, 2);
  add(out, member.flags, 2);
  add(out, member.method, 2);
  add(out, 0, 2);       // time
  add(out, 0x0021, 2);  // the first day of 1980
  add(out, member.checksum < 0 ? crc32(member.content) : static_cast<std::uint64_t>(member.checksum), 4);
  add(out, member.content.size(), 4);
  add(out, member.size < 0 ? member.content.size() : static_cast<std::uint64_t>(member.size), 4);
  add(out, member.name.size(), 2);
  add(out, 0, 2);
  return out;
}

}  // namespace

std::string zip_bytes(const std::vector<ZipMember>& members) {
  std::string out;
  std::string directory;
  for (const ZipMember& member : members) {
    const std::size_t at = out.size();
    out += "PK\x03\x04" + common(member) + member.name + member.content;
    directory += "PK\x01\x02";
    add(directory, 20, 2);
    directory += common(member);
    add(directory, 0, 2 + 2);  // no comment, disk 0
    add(directory, 0, 2 + 4);  // attributes
    add(directory, at, 4);
    directory += member.name;
  }
  const std::size_t at = out.size();
  out += directory + "PK\x05\x06";
  add(out, 0, 4);
  add(out, members.size(), 2);
  add(out, members.size(), 2);
  add(out, directory.size(), 4);
  add(out, at, 4);
  add(out, 0, 2);
  return out;
}

std::string npy_bytes(std::string_view header, std::string_view data, int major) {
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  std::string text(header);
  while ((8 + length_bytes + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string out = "\x93NUMPY";
  add(out, static_cast<std::uint64_t>(major), 1);
  add(out, 0, 1);
  add(out, text.size(), length_bytes);
  return out + text + std::string(data);
}

std::string npy_of(const std::vector<std::int64_t>& values) {
  std::string data(values.size() * sizeof(std::int64_t), '\0');
  if (!values.empty()) std::memcpy(data.data(), values.data(), data.size());
  return npy_bytes(fmt::format("{{'descr': '<i8', 'fortran_order': False, 'shape': ({},), }}", values.size()),
                   data);
}

std::string npz_of(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& mask) {
  return zip_bytes({{.name = "input_ids.npy", .content = npy_of(ids)},
                    {.name = "attention_mask.npy", .content = npy_of(mask)}});
}

}  // namespace tokcask::test
