// SPDX-License-Identifier: Apache-2.0
// Flash attention over keys and values whose groups are not the usual 32, on every instruction set.
#include <attention/cache.hpp>

namespace {

using namespace cached;
using support::on_each_isa;

TEST(Flash, IsWithin1e5OfTheReferenceForGroupsOf16) {
    for (const std::uint32_t dim : {16u, 80u, 128u}) {
        for (const std::size_t group : {1u, 8u}) {
            expect_near_reference<flash<>, kv::int8<16>, kv::int4<16>>({dim, dim, 2, group}, 300, 3);
            expect_near_reference<flash<>, kv::int4<16>, kv::int8<16>>({dim, dim, 2, group}, 300, 3, 8);
            expect_near_reference<flash<>, kv::fp8<16>, kv::fp8<16>>({dim, dim, 2, group}, 300, 3, 8);
        }
    }
}

TEST(Flash, IsWithin1e5OfTheReferenceForGroupsThatAreReadInParts) {
    for (const std::size_t group : {1u, 8u}) {
        for (const std::uint32_t page_tokens : {1u, 32u}) {
            expect_near_reference<flash<>, kv::int8<128>, kv::int4<128>>({128, 384, 1, group}, 300, 3,
                                                                         page_tokens);
            expect_near_reference<flash<>, kv::int4<128>, kv::int8<128>>({256, 128, 1, group}, 300, 3,
                                                                         page_tokens);
            expect_near_reference<flash<>, kv::fp8<128>, kv::fp8<64>>({128, 192, 1, group}, 300, 3,
                                                                      page_tokens);
        }
    }
}

}  // namespace
