#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>

#include <tokcask/error.h>
#include <tokcask/key.h>

#include "tokenize/bytes_tokenizer.h"

namespace tokcask::test {
namespace {

std::string read_back(int fd) {
  std::string text;
  char buffer[65536];
  ssize_t count = 0;
  ::lseek(fd, 0, SEEK_SET);
  while ((count = ::read(fd, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<std::size_t>(count));
  return text;
}

int temporary_file() {
  std::string name = (std::filesystem::temp_directory_path() / "tokcask-capture-XXXXXX").string();
  const int fd = ::mkstemp(name.data());
  if (fd < 0) throw std::runtime_error("mkstemp failed");
  ::unlink(name.c_str());
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

class CountingTokenizer final : public cli::Tokenizer {
 public:
  CountingTokenizer(const std::string& content, std::shared_ptr<CountingLoader::Counts> counts)
      : sha_(sha256_hex("test" + content)), origin_("origin " + content), counts_(std::move(counts)) {}

  [[nodiscard]] std::string sha256() const override {
    ++counts_->identified;
    return sha_;
  }
  [[nodiscard]] std::string origin() const override { return origin_; }
  [[nodiscard]] std::vector<std::vector<std::int32_t>> encode_batch(std::span<const std::string_view> texts,
                                                                    std::size_t max_length) override {
    if (counts_->hook) counts_->hook();
    counts_->texts += static_cast<int>(texts.size());
    return bytes_->encode_batch(texts, max_length);
  }

 private:
  std::string sha_;
  std::string origin_;
  std::shared_ptr<CountingLoader::Counts> counts_;
  std::unique_ptr<cli::Tokenizer> bytes_ = cli::make_bytes_tokenizer();
};

}  // namespace

TempDir::TempDir() {
  const std::filesystem::path base = std::filesystem::canonical(std::filesystem::temp_directory_path());
  path_ = (base / "tokcask-test-XXXXXX").string();
  if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::write(std::string_view name, std::string_view content) const {
  std::string path = *this / name;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
  return path;
}

std::string TempDir::make_directory(std::string_view name) const {
  std::string path = *this / name;
  std::filesystem::create_directories(path);
  return path;
}

std::string TempDir::link(std::string_view name, std::string_view target) const {
  std::string path = *this / name;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  if (::symlink(std::string(target).c_str(), path.c_str()) != 0) throw std::runtime_error("symlink " + path);
  return path;
}

nlohmann::json Outcome::json() const {
  if (out.empty() || out.find('\n') != out.size() - 1) throw std::runtime_error("not one line: " + out);
  nlohmann::json document = nlohmann::json::parse(out);
  if (!document.is_object() || document.at("schema_version") != 1) {
    throw std::runtime_error("not an object of schema 1: " + out);
  }
  return document;
}

Capture::Capture() {
  for (int i = 0; i < 2; ++i) {
    files_[i] = temporary_file();
    saved_[i] = ::fcntl(i + 1, F_DUPFD_CLOEXEC, 10);
    ::dup2(files_[i], i + 1);
  }
}

Capture::~Capture() { restore(); }

void Capture::restore() {
  for (int i = 0; i < 2; ++i) {
    if (saved_[i] < 0) continue;
    ::dup2(saved_[i], i + 1);
    ::close(saved_[i]);
    ::close(files_[i]);
    saved_[i] = -1;
  }
}

Outcome Capture::finish() {
  Outcome outcome;
  outcome.out = read_back(files_[0]);
  outcome.err = read_back(files_[1]);
  restore();
  return outcome;
}

Environment::Environment(const char* name, const char* value) : name_(name) {
  if (const char* old = std::getenv(name)) old_ = old;
  ::setenv(name, value, 1);
}

Environment::~Environment() {
  if (old_) {
    ::setenv(name_, old_->c_str(), 1);
  } else {
    ::unsetenv(name_);
  }
}

cli::TokenizerLoader no_loader() {
  return [](const std::string& file, unsigned) -> std::unique_ptr<cli::Tokenizer> {
    throw Error(Errc::kInvalidArgument, file + " is not a tokenizer");
  };
}

Outcome run(const std::vector<std::string>& args, const cli::TokenizerLoader& load,
            const cli::FormatRunner& formats) {
  const int saved = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 10);
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(null, STDIN_FILENO);
  ::close(null);
  Capture capture;
  const int code = cli::run(args, load, formats);
  Outcome outcome = capture.finish();
  outcome.code = code;
  ::dup2(saved, STDIN_FILENO);
  ::close(saved);
  return outcome;
}

cli::TokenizerLoader CountingLoader::loader() {
  return [counts = counts_](const std::string& file, unsigned) -> std::unique_ptr<cli::Tokenizer> {
    ++counts->loads;
    std::ostringstream content;
    content << std::ifstream(file, std::ios::binary).rdbuf();
    if (content.str().starts_with("not a tokenizer")) {
      throw Error(Errc::kInvalidArgument, file + " is not a tokenizer");
    }
    return std::make_unique<CountingTokenizer>(content.str(), counts);
  };
}

std::uint64_t test_seed() {
  const char* given = std::getenv("TOKCASK_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

}  // namespace tokcask::test
