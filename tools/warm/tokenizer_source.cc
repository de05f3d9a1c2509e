#include "warm/tokenizer_source.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <tokcask/error.h>

#include "tokenize/bytes_tokenizer.h"

namespace tokcask::warm {
namespace {

std::string real_file(const std::string& name) {
  struct stat status;
  std::string file = name;
  if (::stat(file.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) file += "/tokenizer.json";
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(file.c_str(), nullptr), &std::free);
  if (!real) {
    const int error = errno;
    const bool absent = error == ENOENT || error == ENOTDIR;
    throw Error(absent ? Errc::kNotFound : Errc::kIo,
                "tokenizer " + file + ": " + std::strerror(error) +
                    (absent ? " (give a tokenizer file, or \"bytes\"; nothing is downloaded)" : ""));
  }
  if (::stat(real.get(), &status) == 0 && !S_ISREG(status.st_mode)) {
    throw Error(Errc::kInvalidArgument, "tokenizer " + file + ": not a regular file");
  }
  return real.get();
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

TokenizerSource::TokenizerSource(std::string name, const cli::TokenizerLoader& load, unsigned jobs)
    : loader_(load), jobs_(jobs) {
  if (name == cli::kBytesTokenizerName) {
    sha256_ = cli::bytes_tokenizer_sha256();
  } else {
    path_ = real_file(name);
  }
}

const std::string& TokenizerSource::sha256(TokenizedCache& cache, corpus::SettleBudget& budget) {
  if (!sha256_.empty()) return sha256_;
  struct stat status;
  if (::stat(path_.c_str(), &status) == 0) {
    sha256_ = cache.tokenizer_of_file(path_, corpus::identity_of(status)).value_or(std::string());
  }
  if (sha256_.empty()) load(cache, budget);
  return sha256_;
}

cli::Tokenizer& TokenizerSource::load(TokenizedCache& cache, corpus::SettleBudget& budget) {
  if (tokenizer_) return *tokenizer_;
  if (path_.empty()) {
    tokenizer_ = cli::make_bytes_tokenizer();
    cache.declare_tokenizer(sha256_, tokenizer_->traits());
    return *tokenizer_;
  }
  // The loader reads the file by its name, so the identity is taken from the name before and after.
  const corpus::UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  FileIdentity before;
  const bool settled = fd.valid() && corpus::settle(fd.get(), budget, before);
  load_file(cache);
  cache.declare_tokenizer(sha256_, tokenizer_->traits());
  struct stat after;
  if (settled && ::stat(path_.c_str(), &after) == 0 && corpus::identity_of(after) == before) {
    cache.remember_tokenizer_file(path_, before, sha256_);
  }
  return *tokenizer_;
}

void TokenizerSource::load_file(TokenizedCache& cache) {
  try {
    tokenizer_ = loader_(path_, jobs_);
    if (!tokenizer_) throw Error(Errc::kInvalidArgument, "tokenizer " + path_ + ": cannot be loaded");
    // Two memories that agree, of where the file is and of what is in it, are believed: neither has a
    // checksum.
    const std::string origin = tokenizer_->origin();
    const auto known = origin.empty() ? std::nullopt : cache.tokenizer_of_file(origin, {});
    if (known && *known == sha256_) return;
    sha256_ = tokenizer_->sha256();
    if (!is_sha256(sha256_)) {
      throw Error(Errc::kInvalidArgument, "tokenizer " + path_ + ": its identity is not 64 hex digits");
    }
    if (!origin.empty() && known != sha256_) cache.remember_tokenizer_file(origin, {}, sha256_);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(Errc::kInvalidArgument, "tokenizer " + path_ + ": " + error.what());
  }
}

}  // namespace tokcask::warm
