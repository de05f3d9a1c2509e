// TokenDataset: checks arguments, and keeps one Prepared per process over a handle.
#include <tokcask/dataset.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "api/handle.h"
#include "engine/prepared.h"

namespace tokcask {

namespace {

Options options_of(const DatasetOptions& given) {
  Options options;
  options.read_only = true;
  options.populate = given.populate;
  options.derive_lengths = given.derive_lengths;
  options.verify = given.verify;
  options.allow_network_filesystem = given.allow_network_filesystem;
  options.run_id = given.run_id;
  options.on_message = given.on_message;
  return options;
}

// Whether a place counts as an entry for who takes derived ones or does not.
bool is_there(const shm::Place& place, bool derive_lengths) {
  return place.known() && (derive_lengths || !place.is_derived());
}

std::size_t missing_in(std::span<const shm::Place> places, bool derive_lengths) {
  return static_cast<std::size_t>(std::count_if(places.begin(), places.end(), [&](const shm::Place& place) {
    return !is_there(place, derive_lengths);
  }));
}

Error missing_error(const std::filesystem::path& root, std::span<const shm::Place> places,
                    const record::KeyList& keys, bool derive_lengths) {
  const auto first = std::find_if(places.begin(), places.end(),
                                  [&](const shm::Place& p) { return !is_there(p, derive_lengths); });
  return {Errc::kMissing,
          fmt::format("{}: {} of {} keys have no entry, the first of them {}; put them first, or have them "
                      "dropped or made when they are wanted",
                      root.string(), missing_in(places, derive_lengths), places.size(),
                      keys.canonical(static_cast<std::size_t>(first - places.begin())))};
}

}  // namespace

class TokenDataset::Impl {
 public:
  Impl(const std::filesystem::path& root, std::vector<std::byte> packed, const DatasetOptions& options)
      : handle_(root, options_of(options), /*of_process=*/true) {
    const auto keys = record::KeyList::of(packed);
    if (!keys) throw Error(Errc::kInvalidArgument, "the packed keys are damaged, or of another version");
    auto table = table_of(*keys, options.missing);
    size_ = table->size();
    note_kinds(table->keys());
    prepared_ = new Prepared(std::move(table));
  }
  ~Impl() {
    Prepared* const prepared = prepared_;
    if (prepared != nullptr && prepared->generation() == fork_generation()) delete prepared;
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void look_up(std::span<const std::size_t> indices, std::span<std::optional<TokenView>> views) {
    const auto lease = handle_.lease();
    Prepared& prepared = this->prepared();
    for (const std::size_t index : indices) check(index);
    prepared.look_up(*lease, *lease.session(), indices, views);
  }

  void prefetch(std::span<const std::size_t> indices) {
    const auto lease = handle_.lease();
    const auto table = this->table();
    const bool of_file = table->shared().store() == lease->file_uuid();
    std::vector<Populator::Range> ranges;
    ranges.reserve(indices.size());
    for (const std::size_t index : indices) {
      check(index);
      const shm::Place place = table->shared().places()[index];
      if (!of_file || !place.known()) continue;
      ranges.push_back({place.offset(), record::record_bytes(place.length, place.has_mask())});
    }
    lease->populator().read(std::move(ranges));
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool derive() const noexcept { return handle_.options().derive_lengths; }
  [[nodiscard]] std::shared_ptr<const Prepared::Table> table() { return prepared().table(); }
  void check(std::size_t index) const {
    if (index < size_) return;
    throw Error(Errc::kInvalidArgument, fmt::format("index {} of a dataset with {} items", index, size_));
  }
  [[nodiscard]] const std::vector<std::size_t>& kept() const noexcept { return kept_; }
  Handle& handle() noexcept { return handle_; }
  [[nodiscard]] const Handle& handle() const noexcept { return handle_; }

 private:
  // Look-ups by place have no key, so the run is told once what it will be asked for.
  void note_kinds(const record::KeyList& keys) {
    const auto lease = handle_.lease();
    for (const std::size_t index : keys.first_of_each_kind()) lease.session()->note(keys.key(index));
  }

  std::shared_ptr<const Prepared::Table> table_of(const record::KeyList& keys, MissingKeys missing) {
    const auto lease = handle_.lease();
    auto table = Prepared::attach(*lease, keys);
    // Who does not ask what is missing may have an older one. It finds what has changed by its key.
    const auto is_newest = [&](const shm::KeyTable& shared) {
      return shared.txnid() == lease->read().transaction().id() &&
             shared.data_mtime_ns() == lease->environment().modified_ns();
    };
    if (table && (missing == MissingKeys::kKeep ||
                  (is_newest(table->shared()) && missing_in(table->shared().places(), derive()) == 0))) {
      lease->protect(table->shared().places());
      return table;
    }
    const Resolution made = lease->resolve(keys, derive());
    if (missing == MissingKeys::kKeep || missing_in(made.places, derive()) == 0) {
      return Prepared::publish(*lease, made, keys);
    }
    if (missing == MissingKeys::kError) throw missing_error(handle_.root(), made.places, keys, derive());
    return dropped(*lease, made, keys);
  }

  // A table of what is there alone.
  std::shared_ptr<const Prepared::Table> dropped(Engine& engine, const Resolution& all,
                                                 const record::KeyList& keys) {
    Resolution made;
    made.txnid = all.txnid;
    made.data_mtime_ns = all.data_mtime_ns;
    std::vector<CacheKey> left;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (!is_there(all.places[i], derive())) continue;
      kept_.push_back(i);
      left.push_back(keys.key(i));
      made.places.push_back(all.places[i]);
    }
    const std::vector<std::byte> packed = record::pack_keys(left);
    return Prepared::publish(engine, made, record::KeyList::of(packed).value());
  }

  // This process's. In a child, one more over the table that it inherited: the memory is shared, and the
  // parent's object is left as it is, because its threads may have held its locks.
  Prepared& prepared() {
    Prepared* prepared = prepared_.load(std::memory_order_acquire);
    if (prepared->generation() == fork_generation()) return *prepared;
    const std::shared_ptr<const Prepared::Table> inherited(&prepared->newest(),
                                                           [](const Prepared::Table*) {});
    auto fresh = std::make_unique<Prepared>(inherited);
    if (prepared_.compare_exchange_strong(prepared, fresh.get())) return *fresh.release();
    return *prepared;
  }

  Handle handle_;
  std::size_t size_ = 0;
  std::atomic<Prepared*> prepared_{nullptr};
  std::vector<std::size_t> kept_;
};

TokenDataset TokenDataset::open(const std::filesystem::path& root, std::span<const CacheKey> keys,
                                DatasetOptions options) {
  return TokenDataset(std::make_unique<Impl>(root, record::pack_keys(keys), options));
}

TokenDataset TokenDataset::open_packed(const std::filesystem::path& root,
                                       std::span<const std::byte> packed_keys, DatasetOptions options) {
  // Copied, because the caller's bytes need not be aligned.
  return TokenDataset(
      std::make_unique<Impl>(root, std::vector<std::byte>(packed_keys.begin(), packed_keys.end()), options));
}

TokenDataset::TokenDataset(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
TokenDataset::TokenDataset(TokenDataset&&) noexcept = default;
TokenDataset& TokenDataset::operator=(TokenDataset&&) noexcept = default;
TokenDataset::~TokenDataset() = default;

std::size_t TokenDataset::size() const { return impl_->size(); }

FoundTokens TokenDataset::get(std::size_t index) {
  std::optional<TokenView> view;
  impl_->look_up({&index, 1}, {&view, 1});
  return view;
}

std::vector<std::optional<TokenView>> TokenDataset::get_many(std::span<const std::size_t> indices) {
  std::vector<std::optional<TokenView>> views(indices.size());
  impl_->look_up(indices, views);
  return views;
}

std::vector<std::uint32_t> TokenDataset::lengths() const {
  const auto table = impl_->table();
  std::vector<std::uint32_t> lengths;
  lengths.reserve(table->size());
  for (const shm::Place& place : table->shared().places()) {
    lengths.push_back(is_there(place, impl_->derive()) ? place.length : 0);
  }
  return lengths;
}

CacheKey TokenDataset::key(std::size_t index) const {
  impl_->check(index);
  return impl_->table()->keys().key(index);
}

std::span<const std::size_t> TokenDataset::kept() const { return impl_->kept(); }

std::vector<std::byte> TokenDataset::packed_keys() const {
  const auto table = impl_->table();
  const auto packed = table->keys().bytes();
  return {packed.begin(), packed.end()};
}

void TokenDataset::prefetch(std::span<const std::size_t> indices) { impl_->prefetch(indices); }

void TokenDataset::close() {
  if (impl_) impl_->handle().close();
}

std::uint64_t TokenDataset::run_id() const {
  try {
    return impl_->handle().lease().session()->run_id();
  } catch (const Error& error) {
    if (error.code() == Errc::kClosed) return 0;
    throw;
  }
}

const std::filesystem::path& TokenDataset::root() const { return impl_->handle().root(); }

}  // namespace tokcask
