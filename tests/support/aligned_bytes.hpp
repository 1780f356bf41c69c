// SPDX-License-Identifier: Apache-2.0
// Memory that begins at a multiple of 64 bytes, as an engine hands it to kernels, and ends where it was said to.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace support {

/// Dirty at first: nothing may depend on what memory held before.
class AlignedBytes {
public:
    explicit AlignedBytes(std::size_t size)
        : bytes_(static_cast<std::byte*>(::operator new[](size, std::align_val_t{64}))), size_(size) {
        std::memset(bytes_.get(), 0xff, size);
    }
    [[nodiscard]] std::byte* data() const { return bytes_.get(); }
    [[nodiscard]] std::size_t size() const { return size_; }

private:
    struct Delete {
        void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{64}); }
    };
    std::unique_ptr<std::byte[], Delete> bytes_;
    std::size_t size_;
};

}  // namespace support
