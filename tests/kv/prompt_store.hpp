// SPDX-License-Identifier: Apache-2.0
// Stores of small blocks whose bytes follow from their tokens, so that whatever is read can be checked.
#pragma once

#include <zse/kv/prompt_store.hpp>

#include <support/temporary_directory.hpp>

#include <fstream>
#include <memory>
#include <optional>
#include <vector>

namespace support {

namespace kv = zse::kv;
using zse::Bytes;
using zse::KiB;
using zse::MiB;

inline constexpr std::uint32_t stored_page_tokens = 4;
inline constexpr Bytes stored_pages_bytes = 5000;  // a slot of two blocks, and padding
inline constexpr zse::Identity stored_identity{0x0123456789abcdef, 42};

/// Prompt number `prompt`: its block `i` has these tokens. Prompts of one `family` begin with the same two blocks.
inline std::vector<std::int32_t> block_tokens(std::uint32_t prompt, std::uint32_t i,
                                              std::uint32_t family = 0) {
    const std::uint32_t of = i < 2 && family != 0 ? 1000 + family : prompt;
    std::vector<std::int32_t> tokens;
    for (std::uint32_t t = 0; t < stored_page_tokens; ++t) {
        tokens.push_back(static_cast<std::int32_t>(of * 7919 + i * 31 + t * (of + 1)));
    }
    return tokens;
}
/// The bytes of a block behind others: a mixture of all their tokens.
inline std::vector<std::byte> block_bytes(std::uint64_t mixture) {
    std::vector<std::byte> bytes(stored_pages_bytes);
    for (std::byte& byte : bytes) {
        mixture = mixture * 6364136223846793005ULL + 1442695040888963407ULL;
        byte = static_cast<std::byte>(mixture >> 56);
    }
    return bytes;
}
inline std::uint64_t mixed(std::uint64_t mixture, const std::vector<std::int32_t>& tokens) {
    for (const std::int32_t token : tokens) {
        mixture = (mixture ^ static_cast<std::uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
        mixture ^= mixture >> 31;
    }
    return mixture;
}

/// A store with its ledger and the memory that it wants.
class OpenStore {
public:
    explicit OpenStore(const std::filesystem::path& directory, Bytes size = KiB(256),
                       const zse::Identity& identity = stored_identity,
                       Bytes pages_bytes = stored_pages_bytes)
        : layout(kv::PromptLayout::of(stored_page_tokens, pages_bytes, size, 32)),
          index_(ledger
                     .reserve(zse::memory::Tier::host, zse::memory::Kind::prompt_cache,
                              layout.tree_bytes())
                     .value()),
          carver_(index_.bytes()) {
        store.emplace(
            ledger.reserve(zse::memory::Tier::disk, zse::memory::Kind::prompt_cache, layout.file_bytes)
                .value(),
            directory, identity, layout,
            zse::memory::Arena(
                ledger.reserve(zse::memory::Tier::host, zse::memory::Kind::staging, layout.staging_bytes())
                    .value()),
            carver_);
    }

    /// Puts the blocks of a prompt that are missing, and waits for them; how many are there afterwards.
    std::size_t put(std::uint32_t prompt, std::uint32_t blocks, std::uint32_t family = 0) {
        kv::PromptStore::Slot parent = kv::PromptStore::none;
        std::uint64_t mixture = 1;
        for (std::uint32_t i = 0; i < blocks; ++i) {
            const auto tokens = block_tokens(prompt, i, family);
            mixture = mixed(mixture, tokens);
            kv::PromptStore::Slot slot = store->find(parent, tokens.data());
            while (slot == kv::PromptStore::none) {
                kv::PromptStore::Place made;
                const auto bytes = block_bytes(mixture);
                const auto put = store->put(
                    parent, tokens.data(),
                    [&](std::span<std::byte> to) { std::copy_n(bytes.begin(), to.size(), to.begin()); },
                    made);
                if (put == kv::PromptStore::Put::full) return store->wait_for_writes(), i;
                if (put == kv::PromptStore::Put::busy) {
                    store->wait_for_room();
                    continue;
                }
                slot = made.slot;
            }
            parent = slot;
        }
        store->wait_for_writes();
        return blocks;
    }
    /// Blocks of a prompt that are found, from the first on.
    std::vector<kv::PromptStore::Slot> path(std::uint32_t prompt, std::uint32_t blocks,
                                            std::uint32_t family = 0) const {
        std::vector<kv::PromptStore::Slot> path;
        for (std::uint32_t i = 0; i < blocks; ++i) {
            const auto tokens = block_tokens(prompt, i, family);
            const auto next = store->find(path.empty() ? kv::PromptStore::none : path.back(), tokens.data());
            if (next == kv::PromptStore::none) break;
            path.push_back(next);
        }
        return path;
    }
    /// Blocks of a prompt that are found and read; `wrong` counts those whose bytes are not what was put.
    std::size_t read(std::uint32_t prompt, std::uint32_t blocks, std::uint32_t family = 0) {
        const auto found = path(prompt, blocks, family);
        std::vector<std::vector<std::byte>> bytes(found.size());
        const std::size_t good = store->read(found, [&](std::size_t i, std::span<const std::byte> from) {
            bytes[i].assign(from.begin(), from.end());
        });
        std::uint64_t mixture = 1;
        for (std::uint32_t i = 0; i < good; ++i) {
            mixture = mixed(mixture, block_tokens(prompt, i, family));
            wrong += bytes[i] == block_bytes(mixture) ? 0 : 1;
        }
        return good;
    }

    zse::memory::Ledger ledger;
    kv::PromptLayout layout;

private:
    zse::memory::Arena index_;
    zse::memory::Carver carver_;

public:
    std::optional<kv::PromptStore> store;
    std::size_t wrong = 0;
};

inline std::filesystem::path stored_file(const std::filesystem::path& directory,
                                         const zse::Identity& identity = stored_identity) {
    return directory / (identity.short_name() + ".zsecache");
}
inline std::vector<char> file_bytes(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
inline void write_file(const std::filesystem::path& path, const std::vector<char>& bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace support
