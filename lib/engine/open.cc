// Engine::open(): one engine per data file and process, and a good store under it.
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "engine/engine.h"
#include "engine/message.h"
#include "files/salvage.h"
#include "files/store_files.h"
#include "files/write_lock.h"
#include "lmdb/data_claim.h"
#include "os/file_limit.h"
#include "os/fork.h"
#include "os/patience.h"

namespace tokcask {

namespace fs = std::filesystem;

namespace {

// The engines of this process. LMDB's locks are a process's: a second environment on one file would drop the
// locks of the first when it closes. So an engine that is being closed is waited for before its file is
// opened again.
struct Registry {
  std::mutex mutex;
  std::condition_variable closed;
  std::map<FileId, std::weak_ptr<Engine>> engines;
  // Held while a store is opened, by its directory: other stores do not wait.
  std::map<FileId, std::shared_ptr<std::mutex>> opening;

  std::shared_ptr<std::mutex> opening_of(const FileId& directory) {
    const std::lock_guard lock(mutex);
    std::erase_if(opening, [](const auto& entry) { return entry.second.use_count() == 1; });
    auto& held = opening[directory];
    if (!held) held = std::make_shared<std::mutex>();
    return held;
  }

  // Null if there is none. One that is being closed is waited for without `open`, because its last commits
  // may want to open the store; then `waited` is set, and what was known of the file may be no longer so.
  std::shared_ptr<Engine> find(const FileId& id, std::unique_lock<std::mutex>& open, bool& waited) {
    std::unique_lock lock(mutex);
    const auto found = engines.find(id);
    waited = false;
    if (found == engines.end()) return nullptr;
    if (auto engine = found->second.lock()) return engine;
    waited = true;
    open.unlock();
    const auto over = [&] {
      const auto still = engines.find(id);
      return still == engines.end() || !still->second.expired();
    };
    for (Patience patience; !closed.wait_for(lock, Patience::kPause, over);) {
      lock.unlock();
      patience.check();
      lock.lock();
    }
    lock.unlock();
    open = lock_patiently(*open.mutex());
    return nullptr;
  }
};

// A child starts with none: what its parent had open is its parent's. The old registry is left as it is,
// because other threads may have held its locks.
std::atomic<Registry*> registry{new Registry};
const int renewed = pthread_atfork(nullptr, nullptr, [] { registry.store(new Registry); });

struct Close {
  FileId id;
  Registry* owner;
  unsigned generation;
  void operator()(Engine* engine) const {
    // A child must not even close what it inherited.
    if (generation != fork_generation()) return;
    delete engine;
    {
      const std::lock_guard lock(owner->mutex);
      owner->engines.erase(id);
    }
    owner->closed.notify_all();
  }
};

// The root as something to open: an existing directory for a reader, one that is made if need be for a
// writer.
void check_root(const fs::path& root, const Options& options) {
  std::error_code error;
  const fs::file_status status = fs::status(root, error);
  if (status.type() == fs::file_type::none) {
    throw Error(Errc::kIo, fmt::format("{}: cannot look at: {}", root.string(), error.message()));
  }
  if (options.read_only && !fs::exists(status)) {
    throw Error(Errc::kNotFound, fmt::format("{}: no store there", root.string()));
  }
  files::make_directory(root);
  files::refuse_link(root);
  if (!options.allow_network_filesystem) files::refuse_network_file_system(root);
}

// One environment serves all handles of the process, so it is made for writing where that is possible at all.
lmdb::Environment::Mode mode_for(const fs::path& data, const Options& options) {
  if (access(data.c_str(), W_OK) == 0) return lmdb::Environment::Mode::kReadWrite;
  if (options.read_only) return lmdb::Environment::Mode::kReadOnly;
  throw Error(Errc::kIo,
              fmt::format("{}: cannot write: {}; open it read-only", data.string(), std::strerror(errno)));
}

fs::path absolute_of(const fs::path& given) {
  std::error_code error;
  fs::path root = fs::absolute(given, error);
  if (!error) return root;
  throw Error(Errc::kIo,
              fmt::format("{}: cannot find the current directory: {}", given.string(), error.message()));
}

constexpr const char* kReplaced = "was replaced meanwhile";

// Makes the engine of a good store. Otherwise returns why it is not good.
std::optional<std::string> make_engine(const fs::path& root, const Options& options, Registry& engines,
                                       const FileId& id, bool inspected, std::shared_ptr<Engine>& engine) {
  if (!inspected && !files::is_known_good(root)) {
    const files::Inspection inspection = files::inspect(root);
    if (inspection.condition == files::Condition::kAbsent) return "is gone";
    if (inspection.condition == files::Condition::kBad) return inspection.why;
  }
  try {
    const auto open_for = [&](std::uint64_t budget) {
      return files::open_environment(root, id, mode_for(root / "data.mdb", options), options.lock_timeout,
                                     budget);
    };
    auto environment = open_for(options.max_bytes.value_or(0));
    if (!environment) return kReplaced;
    // Others may make the file as large as the store remembers.
    const std::uint64_t budget = read_store_row(lmdb::ReadTransaction(*environment)).max_bytes;
    if (lmdb::Environment::map_bytes_for(budget) > environment->map_bytes()) {
      environment.reset();
      environment = open_for(budget);
      if (!environment) return kReplaced;
    }
    engine = std::shared_ptr<Engine>(new Engine(root, id, std::move(environment)),
                                     Close{id, &engines, fork_generation()});
  } catch (const Error& error) {
    if (error.code() != Errc::kDamaged) throw;
    return error.what();
  }
  const std::lock_guard lock(engines.mutex);
  engines.engines[id] = engine;
  return std::nullopt;
}

// With the write lock held. Whoever has the damaged file open would go on with it.
Recovery recover_alone(const fs::path& root, const Options& options, NoRoom no_room) {
  lmdb::DataClaim claim(root / "data.mdb");
  const lmdb::Alone alone(claim);
  if (!alone) throw claim.not_alone("repaired");
  return recover(root, options.max_bytes, options.shrink, no_room);
}

}  // namespace

std::shared_ptr<Engine> Engine::open(const fs::path& given_root, const Options& options,
                                     const FileId* inspected) {
  const WithoutFileLimitSignal quiet;
  const fs::path root = absolute_of(given_root);
  check_root(root, options);
  const fs::path data = root / "data.mdb";
  Registry& engines = *registry;
  const std::shared_ptr<std::mutex> one_at_a_time = engines.opening_of(files::id_of(root).value());
  std::unique_lock opening = lock_patiently(*one_at_a_time);

  constexpr int kMostAttempts = 16;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    const auto id = files::id_of(data);
    if (!id) {
      if (options.read_only) throw Error(Errc::kNotFound, fmt::format("{}: no store there", root.string()));
      WriteLock write_lock(root / "write.lock");
      const WriteLock::Hold hold = write_lock.acquire(options.lock_timeout);
      if (!files::id_of(data)) files::create(root);  // another process may have been faster
      continue;
    }
    bool waited = false;
    if (auto engine = engines.find(*id, opening, waited)) {
      if (!options.read_only && engine->environment_->read_only()) static_cast<void>(mode_for(data, options));
      return engine;
    }
    if (waited) {
      --attempt;
      continue;
    }
    std::shared_ptr<Engine> engine;
    const auto why =
        make_engine(root, options, engines, *id, inspected != nullptr && *inspected == *id, engine);
    if (!why) return engine;
    if (files::id_of(data) != id) continue;  // another process has replaced it
    if (options.read_only) {
      throw Error(Errc::kDamaged,
                  fmt::format("{}: {}; opened for writing it would be set aside, and what is intact saved",
                              data.string(), *why));
    }
    // Looked at once more while nobody writes, before it is put away.
    WriteLock write_lock(root / "write.lock");
    const WriteLock::Hold hold = write_lock.acquire(options.lock_timeout);
    if (files::id_of(data) != id) continue;
    if (!make_engine(root, options, engines, *id, false, engine)) return engine;
    const Recovery recovery = recover_alone(root, options, NoRoom::kStartEmpty);
    deliver(options.on_message, Severity::kWarning,
            fmt::format("{} {}; {}", data.string(), *why, recovery.description()));
  }
  throw Error(Errc::kIo,
              fmt::format("{}: other processes replace it as fast as it is opened", data.string()));
}

CopyReport Engine::copy(const fs::path& given_to, const Options& options) {
  const WithoutFileLimitSignal quiet;
  const fs::path to = absolute_of(given_to);
  Options of_copy = options;
  of_copy.read_only = false;
  check_root(to, of_copy);
  WriteLock write_lock(to / "write.lock");
  const WriteLock::Hold hold = write_lock.acquire(options.lock_timeout);
  if (files::id_of(to / "data.mdb")) {
    throw Error(Errc::kInvalidArgument,
                fmt::format("{}: holds a store; copy to a directory that holds none", to.string()));
  }
  files::NewFile fresh(to);
  Rewrite how;
  how.new_store = true;
  const Rewritten made = rewrite(*environment_, *access_, fresh.directory(), how);
  fresh.install();
  return {made.bytes, made.entries, made.damaged};
}

std::optional<Recovery> Engine::recover_if_unusable(const fs::path& given_root, const Options& options) {
  const WithoutFileLimitSignal quiet;
  const fs::path root = absolute_of(given_root);
  check_root(root, options);
  Registry& engines = *registry;
  const std::shared_ptr<std::mutex> one_at_a_time = engines.opening_of(files::id_of(root).value());
  const std::unique_lock opening = lock_patiently(*one_at_a_time);
  WriteLock write_lock(root / "write.lock");
  const WriteLock::Hold hold = write_lock.acquire(options.lock_timeout);
  const auto id = files::id_of(root / "data.mdb");
  if (!id) return std::nullopt;
  std::shared_ptr<Engine> engine;
  if (!make_engine(root, options, engines, *id, false, engine)) return std::nullopt;
  return recover_alone(root, options, NoRoom::kThrow);
}

}  // namespace tokcask
