#include <cstring>

#include "record/rows.h"
#include "target.h"

namespace tokcask::fuzz {
namespace {

constexpr std::string_view kPath = "/corpus/a";
constexpr std::string_view kSha = "0123abcd";
const FileIdentity kIdentity{.size = 7, .mtime_ns = 1, .ctime_ns = 2, .inode = 3};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string> seeds() {
  const SourceDirectory files{{"a.c", kIdentity, SourceKind::kSection, {1, 2, 3}},
                              {"b", kIdentity, SourceKind::kBinary, {}},
                              {std::string(300, 'n'), kIdentity, SourceKind::kNotUtf8, {}}};
  rows::EntryChunk chunk{};
  chunk[5] = {
      .section = 9, .tokenizer = 1, .sequence_len = 2048, .generation = 77, .occupied = 4096, .payload = 100};
  return {text_of(rows::encode_directory(kPath, files)),
          text_of(rows::encode_directory(kPath, {})),
          text_of(rows::encode_tokenizer_file(kPath, kIdentity, kSha)),
          text_of(rows::encode_traits(kSha, {.cuts_at_length = true, .cuts_to_prefix = true})),
          text_of(rows::encode_text("a section's name")),
          text_of(rows::bytes_of(chunk)),
          text_of(rows::bytes_of(rows::StoreRow{})),
          text_of(rows::bytes_of(rows::RunRow{}))};
}

void run(std::string_view input) {
  const std::vector<std::byte> copy = exact_copy(input);
  const std::span<const std::byte> bytes(copy);
  if (const auto files = rows::decode_directory(kPath, bytes)) {
    require(rows::decode_directory(kPath, rows::encode_directory(kPath, *files))->size() == files->size(),
            "a directory is encoded and back");
  }
  if (const auto sha = rows::decode_tokenizer_file(kPath, kIdentity, bytes)) {
    require(rows::decode_tokenizer_file(kPath, kIdentity,
                                        rows::encode_tokenizer_file(kPath, kIdentity, *sha)) == sha,
            "a tokenizer file's row is encoded and back");
  }
  const TokenizerTraits traits = rows::decode_traits(kSha, bytes);
  const TokenizerTraits again = rows::decode_traits(kSha, rows::encode_traits(kSha, traits));
  require(traits.cuts_at_length == again.cuts_at_length && traits.cuts_to_prefix == again.cuts_to_prefix,
          "traits are encoded and back");
  const std::string_view text = rows::decode_text(bytes);
  require(rows::decode_text(rows::encode_text(text)) == text, "text is encoded and back");
  if (const auto section = rows::pack_section(text)) {
    require(rows::unpack_section(*section) == text, "a section id is packed and back");
  }
  for (const std::uint32_t slot : {0U, 5U, 126U, 127U, rows::kNoSlot}) rows::is_current(bytes, slot, 77);
  require(rows::read_row<rows::StoreRow>(bytes).has_value() == (bytes.size() == sizeof(rows::StoreRow)),
          "a row has its size");
  rows::read_row<rows::EntryChunk>(bytes);
  rows::read_row<rows::HistoryChunk>(bytes);
  rows::read_row<rows::StampChunk>(bytes);
}

// The counts and lengths, which are what is there to be wrong.
void mutate(std::string& bytes, std::size_t most, Random& random) {
  if (bytes.size() < 16) return mutate_bytes(bytes, most, random);
  const std::size_t at = 4 * below(random, std::min<std::size_t>(bytes.size() / 4, 40));
  std::uint32_t word = 0;
  std::memcpy(&word, bytes.data() + at, sizeof word);
  word = below(random, 2) == 0 ? static_cast<std::uint32_t>(random() >> below(random, 64))
                               : static_cast<std::uint32_t>(word + below(random, 17) - 8);
  std::memcpy(bytes.data() + at, &word, sizeof word);
}

}  // namespace

const Target rows_target{.name = "rows", .seeds = seeds, .run = run, .mutate = mutate, .rounds = 20'000};

}  // namespace tokcask::fuzz
