package capture

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// remedy adds to an error of loading or attaching what would help.
func remedy(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("%w; the kernel's verifier refuses a program: please report it with the output of `uname -r`", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w; run as root, or with CAP_BPF and CAP_PERFMON", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w; a kernel of 5.10 or later with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF is needed", err)
	}
	return err
}
