// SPDX-License-Identifier: Apache-2.0
// Text out of files made fit for an error message: one line, ASCII, bounded, whatever the bytes were.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace zse::inline v1 {
namespace io {
namespace detail {

/// `raw` with everything but printable ASCII escaped as \xNN, cut after `most` characters of input.
/// A message that quotes a hostile name must stay one line and must not carry terminal escapes.
inline std::string printable(std::string_view raw, std::size_t most = 4096) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string shown;
    for (const char character : raw.substr(0, most)) {
        const auto byte = static_cast<unsigned char>(character);
        if (byte >= 0x20 && byte < 0x7f) {
            shown += character;
        } else {
            shown += "\\x";
            shown += hex[byte >> 4];
            shown += hex[byte & 15u];
        }
    }
    if (raw.size() > most) shown += "...";
    return shown;
}

/// 'raw', as printable() but short and between quotes: for keys and tensor names.
inline std::string in_quotes(std::string_view raw) {
    return "'" + printable(raw, 96) + "'";
}

}  // namespace detail
using detail::printable;

}  // namespace io
}  // namespace zse::inline v1
