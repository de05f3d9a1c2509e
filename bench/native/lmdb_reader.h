// A rival: LMDB alone, read with one transaction for the life of the object.
#pragma once

#include <lmdb.h>

#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bench {

inline void check_lmdb(int code) {
  if (code != MDB_SUCCESS) throw std::runtime_error(std::string("LMDB: ") + mdb_strerror(code));
}

class LmdbReader {
 public:
  // `database`: a named one, or the main one if it is empty. The files are nobody's to write meanwhile.
  LmdbReader(const std::filesystem::path& directory, const std::string& database) {
    check_lmdb(mdb_env_create(&env_));
    check_lmdb(mdb_env_set_maxdbs(env_, 4));
    check_lmdb(mdb_env_set_mapsize(env_, std::size_t{1} << 40));
    check_lmdb(mdb_env_open(env_, directory.c_str(), MDB_RDONLY | MDB_NOLOCK | MDB_NORDAHEAD, 0));
    check_lmdb(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn_));
    check_lmdb(mdb_dbi_open(txn_, database.empty() ? nullptr : database.c_str(), 0, &dbi_));
  }
  ~LmdbReader() {
    mdb_txn_abort(txn_);
    mdb_env_close(env_);
  }
  LmdbReader(const LmdbReader&) = delete;
  LmdbReader& operator=(const LmdbReader&) = delete;

  // The value, which lies in the map. It has to be there.
  [[nodiscard]] std::span<const char> get(std::string_view key) const {
    MDB_val k{key.size(), const_cast<char*>(key.data())};
    MDB_val v;
    check_lmdb(mdb_get(txn_, dbi_, &k, &v));
    return {static_cast<const char*>(v.mv_data), v.mv_size};
  }

 private:
  MDB_env* env_ = nullptr;
  MDB_txn* txn_ = nullptr;
  MDB_dbi dbi_ = 0;
};

}  // namespace bench
