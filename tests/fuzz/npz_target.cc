// .npz files: as archives, as an array in a good archive, and as an array's header.
#include <sys/mman.h>
#include <unistd.h>

#include <tokcask/error.h>

#include "../tools/zip_bytes.h"
#include "corpus/file.h"
#include "npz/archive.h"
#include "npz/npy.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

constexpr char kArchive = 'z';
constexpr char kArray = 'a';
constexpr char kHeader = 'h';

std::vector<std::string> seeds() {
  const std::string array = test::npy_of({1, -2, 3});
  std::vector<std::string> seeds{
      kArchive + test::npz_of({1, 2, 3}, {1, 1, 0}),
      kArchive + test::zip_bytes({{.name = "input_ids.npy", .content = array, .method = 8}}),
      // What deflate makes of 1,000 zero bytes.
      kArchive + test::zip_bytes({{.name = "input_ids.npy",
                                   .content = std::string("\x63\x60\x18\x05\xa3\x60\x14\x0c\x77\x00\x00", 11),
                                   .method = 8,
                                   .size = 1000}}),
      kArray + array,
      kArray + test::npy_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", "abc", 2),
      kArray + test::npy_bytes("{'descr': '>u4', 'fortran_order': False, 'shape': (1,), }", "\1\2\3\4", 3)};
  seeds.push_back(std::string(1, kHeader) + "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }\n");
  seeds.push_back(std::string(1, kHeader) +
                  "{\"shape\": (5, ), \"descr\": \"<i2\", \"fortran_order\": True}\n");
  return seeds;
}

template <class Act>
void allow_errors(Act act) {
  try {
    act();
  } catch (const Error& error) {
    require(error.code() == Errc::kInvalidArgument || error.code() == Errc::kDamaged, "malformed or damaged");
  }
}

void read_archive(std::string_view bytes) {
  corpus::UniqueFd file(memfd_create("npz", MFD_CLOEXEC));
  require(file.valid() && write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
          "a file");
  const npz::Arrays arrays = npz::read_npz(std::move(file));
  require(arrays.input_ids.size() == arrays.attention_mask.size(), "an entry's arrays are of one length");
}

void run(std::string_view input) {
  if (input.empty()) return;
  const std::string_view rest = input.substr(1);
  switch (input.front()) {
    case kArchive:
      return allow_errors([&] { read_archive(rest); });
    case kArray:
      return allow_errors([&] {
        const std::string array(rest);
        read_archive(test::zip_bytes(
            {{.name = "input_ids.npy", .content = array}, {.name = "attention_mask.npy", .content = array}}));
      });
    case kHeader:
      return allow_errors([&] {
        const npz::NpyArray array = npz::parse_npy_header(rest);
        require(
            array.item_bytes == 1 || array.item_bytes == 2 || array.item_bytes == 4 || array.item_bytes == 8,
            "an integer has a size");
      });
    default:
      return allow_errors([&] { static_cast<void>(npz::npy_length_bytes(rest)); });
  }
}

}  // namespace

const Target npz_target{.name = "npz", .seeds = seeds, .run = run, .rounds = 10'000};

}  // namespace tokcask::fuzz
