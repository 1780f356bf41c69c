// SPDX-License-Identifier: Apache-2.0
// Weight formats for tests that go through all of them, and names for tests that are typed by a codec.
#pragma once

#include <zse/weights/as_stored.hpp>

#include <string>
#include <vector>

namespace support {

/// All formats, with every size of group.
inline const std::vector<zse::weights::Format>& all_formats() {
    using namespace zse::weights;
    static const std::vector<Format> all{format::f32,      format::f16,      format::bf16,
                                         int8<32>::format, int8<64>::format, int8<128>::format,
                                         nf4<32>::format,  nf4<64>::format,  nf4<128>::format,
                                         format::q4_0,     format::q4_1,     format::q8_0};
    return all;
}

/// For TYPED_TEST_SUITE: a codec by the name of its format, in letters that a test's name may have.
struct CodecName {
    template <class Codec>
    static std::string GetName(int /*index*/) {
        std::string name = zse::weights::name(Codec::format);
        for (char& c : name) c = c == '<' || c == '>' ? '_' : c;
        return name;
    }
};

}  // namespace support
