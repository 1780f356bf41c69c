// SPDX-License-Identifier: Apache-2.0
// Moves tokens that have grown old from pages of one codec to pages of another.
#pragma once

#include <zse/exec/executor.hpp>
#include <zse/kv/append.hpp>

namespace zse::inline v1 {
namespace kv {

/// Decodes pages [first, last) of a sequence and encodes them anew, in all layers of a group. What comes out depends on
/// the codes that were there, and so on the tokens' positions alone.
struct Recode {
    LayerCache from;  ///< of the group's first layer
    LayerCache to;
    const PageIndex* from_pages = nullptr;
    const PageIndex* to_pages = nullptr;
    std::size_t first = 0;
    std::size_t last = 0;

    [[nodiscard]] constexpr std::size_t items() const noexcept {
        return (last - first) * from.pages.layout.layers;
    }
    [[nodiscard]] constexpr Bytes thread_bytes() const noexcept { return 0; }
    void run(std::size_t item, const exec::Worker& /*worker*/) const noexcept {
        const std::size_t page = first + item / from.pages.layout.layers;
        const LayerCache source = layer(from, item % from.pages.layout.layers);
        const LayerCache target = layer(to, item % from.pages.layout.layers);
        const PageLayout& layout = source.pages.layout;
        float row[most_head_dim];
        for (std::size_t head = 0; head < layout.kv_heads; ++head) {
            for (std::size_t slot = 0; slot < layout.page_tokens; ++slot) {
                source.get_key(from_pages[page], head, slot, row);
                if (source.k->rotates)
                    source.k->rotate(row, layout.k_dim);  // encoding turns it again where it has to be
                target.put_key(to_pages[page], head, slot, row);
                source.get_value(from_pages[page], head, slot, row);
                if (source.v->rotates) source.v->rotate(row, layout.v_dim);
                target.put_value(to_pages[page], head, slot, row);
            }
        }
    }

private:
    static LayerCache layer(LayerCache cache, std::size_t index) noexcept {
        cache.pages.pool += index * cache.pages.layout.layer_bytes();
        return cache;
    }
};

}  // namespace kv
}  // namespace zse::inline v1
