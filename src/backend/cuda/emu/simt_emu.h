/* The emulator's body of simt.h. Written with the emulated driver. */
#ifndef M40_CUDA_EMU_SIMT_EMU_H
#define M40_CUDA_EMU_SIMT_EMU_H
#endif
