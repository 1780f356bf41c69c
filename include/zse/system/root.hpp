// SPDX-License-Identifier: Apache-2.0
// Where the probes read: the machine's file system or a copy of parts of it; bounded reads and strict
// numbers.
#pragma once

#include <zse/core/error.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace zse::inline v1 {
namespace system {

/// The directory that stands for "/". Tests and offline reports point it at a copy.
struct Root {
    std::filesystem::path path = "/";

    /// Where `relative` ("proc/meminfo", or "/proc/meminfo") lies under this root.
    [[nodiscard]] std::filesystem::path at(std::string_view relative) const {
        relative.remove_prefix(std::min(relative.find_first_not_of('/'), relative.size()));
        return path / relative;
    }
};

namespace detail {

/// No file of /proc or /sys that is read here comes near it; a CPU takes about 1.5 kB of /proc/cpuinfo.
inline constexpr std::size_t most_text = std::size_t{16} << 20;

/// The text of a regular file; nothing where there is none or it may not be read: what a probe looks for
/// depends on kernel and container. Throws Error(corrupt) where it is longer than `most_text`.
inline std::optional<std::string> read_text(const Root& root, std::string_view relative) {
    const std::filesystem::path path = root.at(relative);
    // Without O_NONBLOCK, opening a FIFO in a foreign root would wait for a writer.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return std::nullopt;
    struct Close {
        int file;
        ~Close() { ::close(file); }
    } const close{file};
    struct stat status {};
    if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;

    std::string text;
    char buffer[16 * 1024];  // files of /proc have no size to ask for
    while (true) {
        const ::ssize_t got = ::read(file, buffer, sizeof buffer);
        if (got == 0) return text;
        if (got < 0) {
            if (errno == EINTR) continue;
            return std::nullopt;
        }
        if (text.size() + static_cast<std::size_t>(got) > most_text) {
            throw Error(ErrorCode::corrupt,
                        zse::text(path.string(), " is expected to hold at most ", most_text,
                                  " bytes and holds more; check the root directory"));
        }
        text.append(buffer, static_cast<std::size_t>(got));
    }
}

/// Without white space at both ends.
constexpr std::string_view trimmed(std::string_view text) noexcept {
    constexpr std::string_view space = " \t\r\n";
    const std::size_t first = text.find_first_not_of(space);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(space) - first + 1);
}

/// Cuts off and gives what precedes the first `separator`; all where there is none.
constexpr std::string_view take_until(std::string_view& rest, char separator) noexcept {
    const std::size_t end = rest.find(separator);
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return part;
}

/// A decimal number that is all of `text` and fits; nothing else is taken.
template <class Number>
std::optional<Number> number(std::string_view text) noexcept {
    Number value{};
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// The size of a list such as "0-3,8,10-11", as the kernel writes sets of CPUs; nothing where it is not one.
inline std::optional<unsigned> list_size(std::string_view list) noexcept {
    constexpr unsigned most = 1u << 20;
    unsigned size = 0;
    list = trimmed(list);
    if (list.empty()) return std::nullopt;
    while (!list.empty()) {
        const std::string_view range = take_until(list, ',');
        const std::size_t dash = range.find('-');
        const auto first = number<unsigned>(range.substr(0, dash));
        const auto last = dash == std::string_view::npos ? first : number<unsigned>(range.substr(dash + 1));
        if (!first || !last || *last < *first || *last >= most) return std::nullopt;
        size += *last - *first + 1;
        if (size > most) return std::nullopt;
    }
    return size;
}

/// Found text for the inside of a one-line message: short, and printable whatever it was.
inline std::string quoted(std::string_view found) {
    constexpr std::size_t most = 60;
    std::string shown = "'";
    for (const char c : found.substr(0, most)) shown += c >= ' ' && c <= '~' ? c : '?';
    shown += found.size() > most ? "...'" : "'";
    return shown;
}

}  // namespace detail
}  // namespace system
}  // namespace zse::inline v1
