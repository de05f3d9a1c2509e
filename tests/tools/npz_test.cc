// Archives and arrays that are wrong in every way: an error that says why, and nothing else.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <functional>
#include <random>

#include <tokcask/error.h>

#include "npz/archive.h"
#include "npz/npy.h"
#include "support.h"
#include "zip_bytes.h"

using namespace tokcask;
using npz::NpyArray;

namespace {

npz::Arrays read(const std::string& archive) {
  const test::TempDir dir;
  const std::string path = dir.write("entry.npz", archive);
  return npz::read_npz(corpus::UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
}

// What the error says, which must be of this kind.
std::string refusal(Errc code, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    INFO(error.what());
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL_CHECK("nothing was thrown");
  return {};
}

bool says(Errc code, const std::string& archive, std::string_view words) {
  const std::string said = refusal(code, [&] { static_cast<void>(read(archive)); });
  CAPTURE(said);
  CHECK(said.find(words) != std::string::npos);
  return true;
}

// The same where the library may find out before anything is read.
void found_damaged(const std::string& archive, std::string_view words) {
  const std::string said = refusal(Errc::kDamaged, [&] { static_cast<void>(read(archive)); });
  CAPTURE(said);
  const bool named =
      said.find(words) != std::string::npos || said.find("no intact zip archive") != std::string::npos;
  CHECK(named);
}

// An archive whose input_ids have this header and these bytes behind it.
std::string with_ids(std::string_view header, std::string_view data, int major = 1) {
  return test::zip_bytes({{.name = "input_ids.npy", .content = test::npy_bytes(header, data, major)},
                          {.name = "attention_mask.npy", .content = test::npy_of({1, 1})}});
}

}  // namespace

TEST_CASE("npz: the headers that NumPy writes, and others that mean the same") {
  for (const char* text : {"{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }\n",
                           "{'descr': '<i8', 'fortran_order': False, 'shape': (5,)}      \n",
                           "{\"shape\": (5, ), \"descr\": \"<i8\", \"fortran_order\": False}\n"}) {
    CAPTURE(text);
    const NpyArray array = npz::parse_npy_header(text);
    CHECK(array.item_bytes == 8);
    CHECK(array.is_signed);
    CHECK_FALSE(array.big_endian);
    CHECK(array.count == 5);
  }
  const NpyArray other = npz::parse_npy_header("{'descr': '>u2', 'fortran_order': False, 'shape': (0,), }\n");
  CHECK(other.item_bytes == 2);
  CHECK_FALSE(other.is_signed);
  CHECK(other.big_endian);
  CHECK(other.count == 0);
  CHECK(npz::parse_npy_header("{'descr': '|i1', 'fortran_order': False, 'shape': (1,), }\n").item_bytes == 1);
}

TEST_CASE("npz: headers that are not those of a one-dimensional array of integers") {
  const std::vector<std::string> bad{
      "",
      "\n",
      "{}\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (5), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (5, 1), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (-5,), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (5,,), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': 5, }\n",
      "{'descr': '<i8', 'fortran_order': True, 'shape': (5,), }\n",
      "{'descr': '<i8', 'fortran_order': 0, 'shape': (5,), }\n",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '|b1', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '|O', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '<i3', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '<i16', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '|i8', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '<i8', 'fortran_order': False, }\n",
      "{'descr': '<i8', 'descr': '<i8', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), 'more': 'x', }\n",
      "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), } x\n",
      "{'descr: '<i8', 'fortran_order': False, 'shape': (5,), }\n",
      "{'descr\n",
      std::string("{'descr': '<i8', \0 'fortran_order': False, 'shape': (5,), }\n", 60),
  };
  for (const std::string& text : bad) {
    CAPTURE(text);
    refusal(Errc::kInvalidArgument, [&] { static_cast<void>(npz::parse_npy_header(text)); });
  }
  for (const std::string_view prefix :
       {std::string_view("\x93NUMPY\x04\x00", 8), std::string_view("\x93NUMPY\x00\x00", 8),
        std::string_view("\x93NUMPY\x01\x01", 8), std::string_view("xNUMPY\x01\x00", 8),
        std::string_view()}) {
    refusal(Errc::kInvalidArgument, [&] { static_cast<void>(npz::npy_length_bytes(prefix)); });
  }
}

TEST_CASE("npz: an entry is read, whatever integers it is made of") {
  const npz::Arrays arrays = read(test::npz_of({1, -2, INT32_MAX, INT32_MIN}, {1, 1, 0, 7}));
  CHECK(arrays.input_ids == std::vector<std::int32_t>{1, -2, INT32_MAX, INT32_MIN});
  CHECK(arrays.attention_mask == std::vector<std::int32_t>{1, 1, 0, 7});
  CHECK(read(test::npz_of({}, {})).input_ids.empty());
  const auto shape = [](const std::string& descr) {
    return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (2,), }";
  };
  const auto expect = [&](const std::string& descr, std::string_view data, std::int32_t first) {
    for (const int major : {1, 2, 3}) {
      CHECK(read(with_ids(shape(descr), data, major)).input_ids == std::vector<std::int32_t>{first, 1});
    }
  };
  expect("|u1", std::string_view("\xff\x01", 2), 255);
  expect("|i1", std::string_view("\xff\x01", 2), -1);
  expect("<u2", std::string_view("\xfe\xff\x01\0", 4), 65534);
  expect(">i2", std::string_view("\xff\xfe\0\x01", 4), -2);
  expect(">u4", std::string_view("\0\0\1\0\0\0\0\1", 8), 256);
  expect(">i8", std::string_view("\xff\xff\xff\xff\x80\0\0\0\0\0\0\0\0\0\0\1", 16), INT32_MIN);
}

TEST_CASE("npz: values, lengths and members that an entry does not have") {
  says(Errc::kInvalidArgument, test::npz_of({1LL << 31}, {1}), "does not fit into 32 bits");
  says(Errc::kInvalidArgument, test::npz_of({-(1LL << 31) - 1}, {1}), "does not fit into 32 bits");
  says(Errc::kInvalidArgument,
       with_ids("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", std::string(8, '\xff')),
       "18446744073709551615");
  says(Errc::kInvalidArgument, test::npz_of({1, 2}, {1}), "2 ids and 1");
  says(Errc::kInvalidArgument, test::zip_bytes({{.name = "input_ids.npy", .content = test::npy_of({1})}}),
       "has no attention_mask.npy");
  says(Errc::kInvalidArgument, test::zip_bytes({}), "input_ids.npy");
  says(Errc::kInvalidArgument, with_ids("{'descr': '<i8', 'fortran_order': False, 'shape': (2,2), }", ""),
       "dimensions");
  says(Errc::kInvalidArgument,
       with_ids("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", std::string(17, '\0')),
       "as large");
  says(Errc::kInvalidArgument,
       with_ids("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", std::string(15, '\0')),
       "as large");
  says(Errc::kInvalidArgument,
       with_ids("{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807,), }", ""),
       "too large");
  says(Errc::kInvalidArgument,
       with_ids("{'descr': '|u1', 'fortran_order': False, 'shape': (33554433,), }", ""), "too large");
  // A header as long as the archive says that it is: not read.
  std::string array = test::npy_of({1});
  array[6] = 2;
  array.replace(8, 4, std::string(4, '\xff'));
  says(Errc::kInvalidArgument, test::zip_bytes({{.name = "input_ids.npy", .content = array}}), "too long");
}

TEST_CASE("npz: archives that are damaged") {
  const std::string good = test::npz_of({1, 2, 3}, {1, 1, 1});
  says(Errc::kDamaged, "", "no intact zip archive");
  says(Errc::kDamaged, "not a zip archive", "no intact zip archive");
  says(Errc::kDamaged, good.substr(0, good.size() / 2), "no intact zip archive");
  // libzip 1.11 finds more of it when it opens an archive, older ones when they read.
  found_damaged(test::zip_bytes({{.name = "input_ids.npy", .content = test::npy_of({1}), .checksum = 12345}}),
                "input_ids");
  found_damaged(test::zip_bytes({{.name = "input_ids.npy", .content = test::npy_of({1}), .method = 8}}),
                "input_ids");
  found_damaged(test::zip_bytes({{.name = "input_ids.npy", .content = "", .size = 0}}), "ends too early");
  found_damaged(test::zip_bytes({{.name = "input_ids.npy", .content = test::npy_of({1}), .flags = 1}}),
                "input_ids");
}

TEST_CASE("npz: any bytes at all are an entry or an error") {
  const std::uint64_t seed = test::test_seed();
  INFO("TOKCASK_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::string good = test::npz_of({1, 2, 3, 4, 5, 6, 7, 8}, {1, 1, 1, 1, 1, 1, 1, 1});
  int read_whole = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (std::uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = static_cast<char>(random() % 2 == 0 ? 0 : 0xFF);
          break;
        case 2:
          bytes.erase(at, random() % 8);
          break;
        default:
          bytes.insert(at, random() % 8, static_cast<char>(random()));
          break;
      }
      if (bytes.empty()) bytes = "x";
    }
    try {
      const npz::Arrays arrays = read(bytes);
      CHECK(arrays.input_ids.size() == arrays.attention_mask.size());
      ++read_whole;
    } catch (const Error&) {
    }
  }
  CHECK(read_whole < 3000);
}
