// SPDX-License-Identifier: Apache-2.0
// Products of bfloat16 by cuBLASLt, which is looked for when the program runs, so that it is not needed to build or start.
#pragma once

#include <zse/core/error.hpp>
#include <zse/exec/cuda/stream.hpp>

#include <dlfcn.h>

#include <initializer_list>

#if __has_include(<cublasLt.h>)
#define ZSE_BENCH_CUBLASLT 1
#include <cublasLt.h>
#else
#define ZSE_BENCH_CUBLASLT 0
#endif

namespace zse_bench {

#if ZSE_BENCH_CUBLASLT

/// y = W x for one shape, by the first algorithm that the library proposes.
class CublasLt {
public:
    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

    /// W `[rows, columns]`, x `[tokens, columns]`, y `[tokens, rows]`, all bfloat16. Throws unsupported without the library.
    CublasLt(std::uint64_t rows, std::uint64_t columns, std::uint64_t tokens, void* workspace)
        : workspace_(workspace) {
        open();
        expect(create_(&handle_));
        expect(describe_(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        // Column by column, as the library reads it: y^T `[rows, tokens]` = (W^T)^T x^T.
        const cublasOperation_t transposed = CUBLAS_OP_T;
        expect(set_(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
        expect(layout_(&w_, CUDA_R_16BF, columns, rows, static_cast<std::int64_t>(columns)));
        expect(layout_(&x_, CUDA_R_16BF, columns, tokens, static_cast<std::int64_t>(columns)));
        expect(layout_(&y_, CUDA_R_16BF, rows, tokens, static_cast<std::int64_t>(rows)));
        expect(prefer_(&preference_));
        const std::size_t bytes = workspace_bytes;
        expect(set_preference_(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes));
        int found = 0;
        expect(propose_(handle_, product_, w_, x_, y_, y_, preference_, 1, &choice_, &found));
        if (found == 0)
            throw zse::Error(zse::ErrorCode::unsupported, "cuBLASLt has no algorithm for this shape");
    }
    CublasLt(const CublasLt&) = delete;
    CublasLt& operator=(const CublasLt&) = delete;
    ~CublasLt() {
        (void)forget_preference_(preference_);
        for (const auto layout : {w_, x_, y_}) (void)forget_layout_(layout);
        (void)forget_product_(product_);
        (void)destroy_(handle_);
    }

    void run(zse::exec::gpu::Stream& stream, const void* w, const void* x, void* y) const {
        const float one = 1;
        const float zero = 0;
        const cublasStatus_t status =
            multiply_(handle_, product_, &one, w, w_, x, x_, &zero, y, y_, y, y_, &choice_.algo, workspace_,
                      workspace_bytes, static_cast<cudaStream_t>(stream.handle()));
        if (status != CUBLAS_STATUS_SUCCESS) stream.fail(static_cast<int>(status), "cuBLASLt failed");
    }

private:
    void open() {
        void* library = nullptr;
        for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
            if (library == nullptr) library = ::dlopen(name, RTLD_NOW);
        }
        if (library == nullptr) throw zse::Error(zse::ErrorCode::unsupported, "cuBLASLt is not installed");
        const auto find = [library](auto& function, const char* name) {
            function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
            if (function == nullptr) throw zse::Error(zse::ErrorCode::unsupported, "cuBLASLt is too old");
        };
        find(create_, "cublasLtCreate");
        find(destroy_, "cublasLtDestroy");
        find(describe_, "cublasLtMatmulDescCreate");
        find(forget_product_, "cublasLtMatmulDescDestroy");
        find(set_, "cublasLtMatmulDescSetAttribute");
        find(layout_, "cublasLtMatrixLayoutCreate");
        find(forget_layout_, "cublasLtMatrixLayoutDestroy");
        find(prefer_, "cublasLtMatmulPreferenceCreate");
        find(forget_preference_, "cublasLtMatmulPreferenceDestroy");
        find(set_preference_, "cublasLtMatmulPreferenceSetAttribute");
        find(propose_, "cublasLtMatmulAlgoGetHeuristic");
        find(multiply_, "cublasLtMatmul");
    }
    static void expect(cublasStatus_t status) {
        if (status != CUBLAS_STATUS_SUCCESS) {
            throw zse::Error(zse::ErrorCode::internal,
                             zse::text("cuBLASLt answers ", static_cast<int>(status)));
        }
    }

    decltype(&cublasLtCreate) create_ = nullptr;
    decltype(&cublasLtDestroy) destroy_ = nullptr;
    decltype(&cublasLtMatmulDescCreate) describe_ = nullptr;
    decltype(&cublasLtMatmulDescDestroy) forget_product_ = nullptr;
    decltype(&cublasLtMatmulDescSetAttribute) set_ = nullptr;
    decltype(&cublasLtMatrixLayoutCreate) layout_ = nullptr;
    decltype(&cublasLtMatrixLayoutDestroy) forget_layout_ = nullptr;
    decltype(&cublasLtMatmulPreferenceCreate) prefer_ = nullptr;
    decltype(&cublasLtMatmulPreferenceDestroy) forget_preference_ = nullptr;
    decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference_ = nullptr;
    decltype(&cublasLtMatmulAlgoGetHeuristic) propose_ = nullptr;
    decltype(&cublasLtMatmul) multiply_ = nullptr;

    cublasLtHandle_t handle_ = nullptr;
    cublasLtMatmulDesc_t product_ = nullptr;
    cublasLtMatrixLayout_t w_ = nullptr;
    cublasLtMatrixLayout_t x_ = nullptr;
    cublasLtMatrixLayout_t y_ = nullptr;
    cublasLtMatmulPreference_t preference_ = nullptr;
    cublasLtMatmulHeuristicResult_t choice_{};
    void* workspace_;
};

#else

class CublasLt {
public:
    static constexpr std::size_t workspace_bytes = 16;

    CublasLt(std::uint64_t /*rows*/, std::uint64_t /*columns*/, std::uint64_t /*tokens*/,
             void* /*workspace*/) {
        throw zse::Error(zse::ErrorCode::unsupported,
                         "this program was built without the header of cuBLASLt");
    }
    void run(zse::exec::gpu::Stream& /*stream*/, const void* /*w*/, const void* /*x*/, void* /*y*/) const {}
};

#endif

}  // namespace zse_bench
