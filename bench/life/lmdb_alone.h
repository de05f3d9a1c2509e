// The rival of the benchmarks of a cache's life: the same puts and deletes through LMDB alone, without a cap,
// checksums or rows for entries.
#pragma once

#include <lmdb.h>

#include <cstring>
#include <deque>
#include <memory>

#include "support.h"

namespace bench {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kRecordHeader = 48;
constexpr std::size_t kPageHeader = 16;

struct Item {
  std::uint64_t number = 0;
  std::size_t length = 0;  // ids
  bool doomed = false;     // to be pruned
  [[nodiscard]] std::size_t payload() const { return length * sizeof(std::int32_t); }
};

class LmdbAlone {
 public:
  LmdbAlone(const std::filesystem::path& path, std::uint64_t budget) {
    std::filesystem::create_directory(path);
    check(mdb_env_create(&env_));
    check(mdb_env_set_maxdbs(env_, 1));
    // The file may grow past the cap, if its free pages do not lie side by side: that is measured, too.
    check(mdb_env_set_mapsize(env_, budget * 8));
    check(mdb_env_open(env_, path.c_str(), MDB_NOTLS, 0600));
    MDB_txn* txn = begin();
    check(mdb_dbi_open(txn, "records", MDB_CREATE, &dbi_));
    check(mdb_txn_commit(txn));
  }
  ~LmdbAlone() { mdb_env_close(env_); }
  LmdbAlone(const LmdbAlone&) = delete;
  LmdbAlone& operator=(const LmdbAlone&) = delete;

  // Puts all, 1,000 or 32 MiB per transaction, and deletes the oldest where live entries would occupy more
  // than `most` bytes.
  void put(std::span<const Item> items, std::uint64_t most, const Ids& ids) {
    std::size_t done = 0;
    while (done < items.size()) {
      MDB_txn* txn = begin();
      std::uint64_t bytes = 0;
      for (std::size_t count = 0; done < items.size() && count < 1000 && bytes < 32 * kMiB; ++count) {
        const Item& item = items[done++];
        while (!live_.empty() && live_bytes_ + occupied(item) > most) {
          erase(txn, live_.front());
          live_.pop_front();
        }
        put_one(txn, item, ids);
        bytes += item.payload();
      }
      check(mdb_txn_commit(txn));
    }
  }

  // Deletes the doomed, 1,000 per transaction.
  void prune() {
    std::deque<Item> kept;
    MDB_txn* txn = begin();
    std::size_t count = 0;
    for (const Item& item : live_) {
      if (!item.doomed) {
        kept.push_back(item);
        continue;
      }
      erase(txn, item);
      if (++count % 1000 != 0) continue;
      check(mdb_txn_commit(txn));
      txn = begin();
    }
    check(mdb_txn_commit(txn));
    live_ = std::move(kept);
  }

  // Of what lives.
  [[nodiscard]] std::vector<std::uint64_t> numbers() const {
    std::vector<std::uint64_t> numbers;
    for (const Item& item : live_) numbers.push_back(item.number);
    return numbers;
  }

  // A value as a reader sees it, for as long as it is held.
  class View {
   public:
    View(LmdbAlone& store, std::uint64_t number) : txn_(store.begin(MDB_RDONLY), &mdb_txn_abort) {
      std::string key = padded_key(number);
      MDB_val k{key.size(), key.data()};
      MDB_val v{0, nullptr};
      if (mdb_get(txn_.get(), store.dbi_, &k, &v) == MDB_SUCCESS)
        value_ = {static_cast<const std::byte*>(v.mv_data), v.mv_size};
    }
    // Nothing if it is deleted.
    [[nodiscard]] std::span<const std::byte> value() const { return value_; }

   private:
    std::unique_ptr<MDB_txn, decltype(&mdb_txn_abort)> txn_;
    std::span<const std::byte> value_;
  };

 private:
  static void check(int code) {
    if (code != MDB_SUCCESS) throw std::runtime_error(fmt::format("LMDB: {}", mdb_strerror(code)));
  }
  MDB_txn* begin(unsigned flags = 0) {
    MDB_txn* txn = nullptr;
    check(mdb_txn_begin(env_, nullptr, flags, &txn));
    return txn;
  }
  // 88 bytes, as the store's are.
  static std::string padded_key(std::uint64_t number) {
    std::string key = key_of(number).canonical();
    key.resize((key.size() + 7) / 8 * 8);
    return key;
  }
  void put_one(MDB_txn* txn, const Item& item, const Ids& ids) {
    std::string key = padded_key(item.number);
    MDB_val k{key.size(), key.data()};
    MDB_val v{(kRecordHeader + item.payload() + 7) / 8 * 8, nullptr};
    check(mdb_put(txn, dbi_, &k, &v, MDB_RESERVE));
    auto* const out = static_cast<std::byte*>(v.mv_data);
    std::memset(out, 0, kRecordHeader);
    std::memcpy(out + kRecordHeader, ids.take(item.number, item.length).data(), item.payload());
    live_.push_back(item);
    live_bytes_ += occupied(item);
  }
  void erase(MDB_txn* txn, const Item& item) {
    std::string key = padded_key(item.number);
    MDB_val k{key.size(), key.data()};
    check(mdb_del(txn, dbi_, &k, nullptr));
    live_bytes_ -= occupied(item);
  }
  // Of the pages that a value takes, or of the value where it lies in a leaf.
  static std::uint64_t occupied(const Item& item) {
    constexpr std::size_t kInline = 2030 - 88;
    const std::size_t value = kRecordHeader + item.payload();
    return value <= kInline ? value + 96 : (value + kPageHeader + kPage - 1) / kPage * kPage;
  }

  MDB_env* env_ = nullptr;
  MDB_dbi dbi_ = 0;
  std::deque<Item> live_;  // oldest first
  std::uint64_t live_bytes_ = 0;
};

}  // namespace bench
