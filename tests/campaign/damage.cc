#include "damage.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "lmdb/page_layout.h"

namespace tokcask::campaign {

namespace {

namespace layout = lmdb::layout;
using lmdb::test::Anatomy;

constexpr std::array<KindFacts, kKinds> kFacts = {{
    {Kind::kBit, "bit", "one bit", 14, true},
    {Kind::kByte, "byte", "one byte", 8, true},
    {Kind::kZero, "zero", "a page of zeros", 8, true},
    {Kind::kNoise, "noise", "a page of random bytes", 8, true},
    {Kind::kSwap, "swap", "pages swapped", 8, true},
    {Kind::kOld, "old", "pages of an earlier commit", 12, true},
    {Kind::kSeveral, "several", "2 to 6 of these", 8, true},
    {Kind::kCut, "cut", "cut short", 8, true},
    {Kind::kLonger, "longer", "longer, or empty", 2, true},
    {Kind::kMeta, "meta", "one meta page", 4, true},
    {Kind::kMetas, "metas", "both meta pages", 5, true},
    {Kind::kLock, "lock", "lock.mdb", 3, true},
    {Kind::kAccess, "access", "access.shm", 3, false},
    {Kind::kKeys, "keys", "key table", 2, false},
    {Kind::kWriteLock, "write-lock", "write.lock", 1, false},
    {Kind::kEverything, "everything", "all files", 3, true},
    {Kind::kAccessLive, "access-live", "access.shm, mapped", 3, false},
    {Kind::kKeysLive, "keys-live", "key table, mapped", 2, false},
}};

// A page, or the pages of one value.
struct Extent {
  std::size_t at = 0;
  std::size_t bytes = 0;
};

class Surgeon {
 public:
  Surgeon(const Sample& sample, Random& random)
      : sample_(sample), random_(random), page_(sample.anatomy.page_bytes) {}

  void operate(DamagedStore& damage, Kind kind) {
    Bytes& data = damage.files.data;
    switch (kind) {
      case Kind::kBit:
      case Kind::kByte:
        return flip(damage, target(data), kind == Kind::kBit);
      case Kind::kZero:
      case Kind::kNoise:
        return blank(damage, target(data), kind == Kind::kNoise);
      case Kind::kSwap:
        return swap(damage);
      case Kind::kOld:
        return resurface(damage);
      case Kind::kSeveral:
        for (std::uint64_t n = 2 + chance(5); n > 0; --n) operate(damage, static_cast<Kind>(chance(6)));
        return;
      case Kind::kCut:
        return cut(damage);
      case Kind::kLonger:
        return lengthen(damage);
      case Kind::kMeta:
        return meta(damage, chance(2), chance(4));
      case Kind::kMetas:
        return metas(damage);
      case Kind::kLock:
        return other_file(damage, "lock.mdb", damage.files.lock);
      case Kind::kAccess:
        return other_file(damage, "access.shm", damage.files.access);
      case Kind::kKeys:
        return other_file(damage, "the key table", damage.files.keys);
      case Kind::kWriteLock:
        return other_file(damage, "write.lock", damage.files.write_lock);
      case Kind::kEverything:
        for (const Kind each : {Kind::kLock, Kind::kAccess, Kind::kKeys, Kind::kWriteLock})
          operate(damage, each);
        return operate(damage, static_cast<Kind>(chance(6)));
      case Kind::kAccessLive:
        return later(damage, "access.shm", *sample_.files.access);
      case Kind::kKeysLive:
        return later(damage, sample_.keys_name, *sample_.files.keys);
    }
  }

 private:
  std::uint64_t chance(std::uint64_t end) { return below(random_, end); }

  template <class... Arguments>
  void say(DamagedStore& damage, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    if (!damage.what.empty()) damage.what += "; ";
    damage.what += fmt::format(format, std::forward<Arguments>(arguments)...);
  }

  // By what the good file says, because another damage may have come before.
  [[nodiscard]] Extent value_at(std::size_t at) const {
    const Bytes& data = sample_.files.data;
    const std::size_t pages = layout::load<layout::PageHeader>(data.data() + at).overflow_pages();
    return {at, std::min(pages * page_, data.size() - at)};
  }

  // Uniform, or a part of the file that is chosen by what it is.
  Extent target(const Bytes& data) {
    const Anatomy& anatomy = sample_.anatomy;
    const auto page_of = [&](const std::vector<std::size_t>& pages) {
      return pages.empty() ? Extent{chance(data.size() / page_) * page_, page_}
                           : Extent{one_of(random_, pages), page_};
    };
    switch (chance(8)) {
      case 0:
        return {chance(2) * page_, page_};
      case 1:
        return page_of(anatomy.branches);
      case 2:
        return page_of(chance(2) == 0 ? anatomy.free_leaves : anatomy.main_leaves);
      case 3:
      case 4:
        return page_of(anatomy.leaves);
      case 5:
      case 6:
        // Also those that hold tables.
        return anatomy.overflows.empty() ? page_of({}) : value_at(one_of(random_, anatomy.overflows));
      default:
        return page_of({});
    }
  }

  // Half of the time in the first bytes, where the headers are.
  std::size_t place_in(const Extent& extent) {
    constexpr std::size_t kHead = 152;
    return extent.at + chance(chance(2) == 0 ? std::min(kHead, extent.bytes) : extent.bytes);
  }

  void flip(DamagedStore& damage, const Extent& extent, bool bit) {
    const std::size_t at = place_in(extent);
    if (at >= damage.files.data.size()) return;
    std::byte& byte = damage.files.data[at];
    const auto change = static_cast<std::byte>(bit ? 1U << chance(8) : 1 + chance(255));
    byte ^= change;
    say(damage, "byte {} (page {}) ^= {:#x}", at, at / page_, static_cast<unsigned>(change));
  }

  void fill(std::span<std::byte> bytes, bool noise) {
    for (std::byte& byte : bytes) byte = noise ? static_cast<std::byte>(random_()) : std::byte{0};
  }

  void blank(DamagedStore& damage, const Extent& extent, bool noise) {
    Bytes& data = damage.files.data;
    const std::size_t at = extent.at + chance(extent.bytes / page_) * page_;
    const bool keeps_header = chance(4) == 0;
    const std::size_t from = at + (keeps_header ? sizeof(layout::PageHeader) : 0);
    fill(std::span(data).subspan(from, std::min(at + page_, data.size()) - from), noise);
    say(damage, "page {} {}{}", at / page_, noise ? "random" : "zero",
        keeps_header ? ", its header kept" : "");
  }

  // What a write to the wrong place leaves. Sometimes the page headers stay, so that only what follows lies.
  void swap(DamagedStore& damage) {
    Bytes& data = damage.files.data;
    const Extent a = target(data);
    Extent b = target(data);
    for (int looks = 0; looks < 20 && (b.at == a.at || b.bytes != a.bytes); ++looks) b = target(data);
    const std::size_t bytes = std::min(a.bytes, b.bytes);
    const std::size_t skip = chance(2) == 0 ? sizeof(layout::PageHeader) : 0;
    const auto from = data.begin() + static_cast<std::ptrdiff_t>(a.at + skip);
    const auto to = data.begin() + static_cast<std::ptrdiff_t>(b.at + skip);
    if (a.at == b.at || (a.at < b.at + bytes && b.at < a.at + bytes)) return flip(damage, a, true);
    std::swap_ranges(from, from + static_cast<std::ptrdiff_t>(bytes - skip), to);
    say(damage, "{} page(s) at {} and {} swapped{}", bytes / page_, a.at / page_, b.at / page_,
        skip != 0 ? " but for the header" : "");
  }

  void resurface(DamagedStore& damage) {
    Bytes& data = damage.files.data;
    for (int looks = 0; looks < 100; ++looks) {
      const Extent extent = target(data);
      const Bytes& older = one_of(random_, sample_.older);
      if (extent.at + extent.bytes > std::min(older.size(), data.size())) continue;
      // One page of a value, or all of them.
      const std::size_t pages = extent.bytes / page_;
      const std::size_t first = chance(2) == 0 ? 0 : chance(pages);
      const std::size_t count = first == 0 && chance(2) == 0 ? pages : 1;
      const auto from = older.begin() + static_cast<std::ptrdiff_t>(extent.at + first * page_);
      const auto to = data.begin() + static_cast<std::ptrdiff_t>(extent.at + first * page_);
      const auto bytes = static_cast<std::ptrdiff_t>(count * page_);
      if (std::equal(from, from + bytes, to)) continue;
      std::copy(from, from + bytes, to);
      return say(damage, "{} page(s) at {} as in image {}", count, extent.at / page_ + first,
                 &older - sample_.older.data());
    }
  }

  void cut(DamagedStore& damage) {
    Bytes& data = damage.files.data;
    std::size_t size = 1 + chance(data.size() - 1);
    if (chance(3) == 0) size -= size % page_;
    if (chance(4) == 0) size = data.size() - 1 - chance(std::min(data.size() - 1, 4 * page_));
    say(damage, "cut to {} of {} bytes", size, data.size());
    data.resize(size);
  }

  void lengthen(DamagedStore& damage) {
    Bytes& data = damage.files.data;
    const std::size_t before = data.size();
    if (chance(4) == 0) {
      data.clear();
    } else {
      data.resize(before + 1 + chance(20 * page_));
      fill(std::span(data).subspan(before), chance(2) == 0);
    }
    say(damage, "{} bytes instead of {}", data.size(), before);
  }

  void meta(DamagedStore& damage, std::size_t which, std::uint64_t how) {
    Bytes& data = damage.files.data;
    const Extent page{which * page_, page_};
    if (how == 0)
      return flip(damage, {page.at, sizeof(layout::PageHeader) + sizeof(layout::Meta)}, chance(2) == 0);
    if (how == 1) return blank(damage, page, false);
    if (how == 2) return blank(damage, page, true);
    const Bytes& older = one_of(random_, sample_.older);
    std::copy_n(older.begin() + static_cast<std::ptrdiff_t>(page.at), page.bytes,
                data.begin() + static_cast<std::ptrdiff_t>(page.at));
    say(damage, "meta page {} as in image {}", which, &older - sample_.older.data());
  }

  void metas(DamagedStore& damage) {
    const std::uint64_t how = chance(4);
    if (how < 3) {
      meta(damage, 0, how);
      meta(damage, 1, chance(3));
      return;
    }
    const Bytes& older = one_of(random_, sample_.older);
    std::copy_n(older.begin(), 2 * page_, damage.files.data.begin());
    say(damage, "both meta pages as in image {}", &older - sample_.older.data());
  }

  // Any damage of a small file that is no database.
  std::function<void(Bytes&)> harm(std::string& what, std::size_t size, bool cut) {
    const std::uint64_t seed = random_();
    const std::uint64_t how = chance(cut ? 5 : 4);
    static constexpr const char* kHow[] = {"bits", "words in its head", "a block of zeros", "noise",
                                           "cut short"};
    what = fmt::format("{} ({:#x})", kHow[how], seed);
    return [how, seed, size](Bytes& bytes) {
      if (size == 0) return bytes.resize(17);
      Random random(seed);
      constexpr std::size_t kBlock = 4096;
      const auto spoil = [&](std::size_t from, std::size_t count, bool zero) {
        for (std::size_t i = from; i < std::min(from + count, bytes.size()); ++i)
          bytes[i] = zero ? std::byte{0} : static_cast<std::byte>(random());
      };
      const std::size_t start = below(random, size) / kBlock * kBlock;
      switch (how) {
        case 0:
          for (std::uint64_t n = 1 + below(random, 50); n > 0; --n)
            bytes[below(random, below(random, 2) == 0 ? std::min<std::size_t>(size, 256) : size)] ^=
                static_cast<std::byte>(1U << below(random, 8));
          break;
        case 1:
          for (std::uint64_t n = 1 + below(random, 3); n > 0; --n)
            spoil(8 * below(random, std::min<std::size_t>(size, 160) / 8 + 1), 8, below(random, 3) == 0);
          break;
        case 2:
          spoil(start, kBlock * (1 + below(random, 4)), true);
          break;
        case 3:
          spoil(start, kBlock * (1 + below(random, 4)), false);
          break;
        default:
          bytes.resize(below(random, size));
      }
    };
  }

  void other_file(DamagedStore& damage, const char* name, std::optional<Bytes>& file) {
    std::string what;
    if (chance(8) == 0 || !file) {
      file.reset();
      what = "gone";
    } else {
      harm(what, file->size(), true)(*file);
    }
    say(damage, "{}: {}", name, what);
  }

  void later(DamagedStore& damage, const std::string& file, const Bytes& bytes) {
    std::string what;
    damage.later = {file, harm(what, bytes.size(), false), chance(2) == 0};
    say(damage, "{} while open{}: {}", file, damage.later.after_use ? " and used" : "", what);
  }

  const Sample& sample_;
  Random& random_;
  std::size_t page_;
};

}  // namespace

const std::array<KindFacts, kKinds>& kinds() { return kFacts; }
const KindFacts& facts_of(Kind kind) { return kFacts[static_cast<std::size_t>(kind)]; }

DamagedStore damage(const Sample& sample, Kind kind, Random& random) {
  DamagedStore damage;
  damage.files = sample.files;
  if (kind != Kind::kLock && kind != Kind::kEverything) damage.files.lock.reset();
  Surgeon(sample, random).operate(damage, kind);
  return damage;
}

}  // namespace tokcask::campaign
