// Fills the tables of a new data file in key order, which leaves no gaps. For files in the making: a kill
// leaves a part that nobody will look at.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "lmdb/environment.h"
#include "record/rows.h"

namespace tokcask {

// Appends to both tables of a new file, in transactions of bounded size.
class Appender {
 public:
  explicit Appender(const lmdb::Environment& environment) : environment_(&environment) {}

  void append(lmdb::Table table, lmdb::Bytes key, lmdb::Bytes value) {
    if (!transaction_) transaction_.emplace(*environment_);
    transaction_->append(table, key, value);
    bytes_ += key.size() + value.size();
    if (bytes_ >= kTransactionBytes) commit();
  }
  // All of it is durable when this returns.
  void finish() {
    commit();
    environment_->sync();
  }

 private:
  // Written in one transaction; what it holds is in memory until then.
  static constexpr std::uint64_t kTransactionBytes = 32 << 20;

  void commit() {
    if (transaction_) transaction_->commit();
    transaction_.reset();
    bytes_ = 0;
  }

  const lmdb::Environment* environment_;
  std::optional<lmdb::WriteTransaction> transaction_;
  std::uint64_t bytes_ = 0;
};

// Rows of fixed size by number, in the chunks in which they are stored.
template <typename Chunk, typename Row>
void append_rows(Appender& out, rows::Tag tag, const std::vector<Row>& all) {
  constexpr std::size_t kPerChunk = std::tuple_size_v<Chunk>;
  for (std::size_t first = 0; first < all.size(); first += kPerChunk) {
    Chunk chunk{};
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(first), std::min(kPerChunk, all.size() - first),
                chunk.begin());
    out.append(lmdb::Table::kMeta, rows::MetaKey(tag, first / kPerChunk).bytes(),
               std::as_bytes(std::span(chunk)));
  }
}

}  // namespace tokcask
