package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// How long a machine may say nothing, and how long it may take as a whole. A test says
// when it begins and ends. Each waits for the verifier first, which takes 5 s emulated, on
// Linux 5.10 20 s, and ten times as long where others work beside it: that is slow, and no
// hang. The second is for a kernel that repeats a warning for ever.
const (
	silentLimit = 15 * time.Minute
	wholeLimit  = 3 * time.Hour
)

// machine is how QEMU makes a machine of an architecture.
type machine struct {
	arch, qemu string
	args       []string
	append     string // to the kernel's command line
	whole      bool   // every test runs
}

// exactClock makes the time stamp counter the clock of a machine that has no other
// timer to try it against, by which the kernel would go otherwise: its ticks of 4 ms
// give packets on two processors one time, and thus no order.
const exactClock = "tsc_early_khz=2600000 tsc=reliable clocksource=tsc"

var machines = map[string]machine{
	"amd64": {arch: "amd64", qemu: "qemu-system-x86_64", args: []string{
		"-M", "microvm,x-option-roms=off,rtc=on",
		// QEMU 7.2 gets flags wrong around cmpxchg16b, which the slab of newer kernels uses.
		"-cpu", "max,-cx16",
	}, append: "console=ttyS0 reboot=t " + exactClock},
	"arm64": {arch: "arm64", qemu: "qemu-system-aarch64", args: []string{
		"-M", "virt",
		// Pointer authentication takes QEMU as long as all the rest together.
		"-cpu", "max,pauth-impdef=on",
	}, append: "console=ttyAMA0"},
}

// errBoot is a machine that did not get as far as init.
var errBoot = errors.New("the kernel did not boot")

// maxBoots is how often a kernel may try to boot: QEMU without hardware
// virtualization now and then trips over the kernel patching its own code on one
// processor while another runs it. What init has begun is never tried again.
const maxBoots = 3

// test boots a kernel until it runs the tests, and returns what it printed.
func (m machine) test(ctx context.Context, k kernel, lacks []lack, image, dir string) (out string, err error) {
	image, err = withKernel(ctx, k, lacks, m.arch, image, dir)
	if err != nil {
		return "", fmt.Errorf("make its image: %w", err)
	}
	defer func() { _ = os.Remove(image) }()
	for range maxBoots {
		if out, err = m.boot(ctx, k.image, image, filepath.Join(dir, k.version+".log")); !errors.Is(err, errBoot) {
			break
		}
	}
	return out, err
}

// boot keeps what the machine prints in a file too, to be looked at meanwhile.
func (m machine) boot(ctx context.Context, kernel, image, log string) (string, error) {
	file, err := os.Create(log)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	ctx, cancel := context.WithTimeoutCause(ctx, wholeLimit, fmt.Errorf("not done after %v", wholeLimit))
	defer cancel()
	ctx, hang := context.WithCancelCause(ctx)
	defer hang(nil)
	cmd := exec.CommandContext(ctx, m.qemu, append(m.args[:len(m.args):len(m.args)],
		"-accel", "tcg", "-m", "768", "-smp", "2",
		"-kernel", kernel, "-initrd", image,
		"-append", "quiet panic=-1 "+m.append,
		"-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio")...)
	out := console{silent: time.AfterFunc(silentLimit, func() { hang(fmt.Errorf("it said nothing for %v", silentLimit)) })}
	defer out.silent.Stop()
	both := io.MultiWriter(&out, file)
	cmd.Stdout, cmd.Stderr = both, both // one writer: os/exec copies with one goroutine
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("qemu: %w", errors.Join(err, context.Cause(ctx)))
	}
	if !strings.Contains(out.String(), "=== RUN") && !strings.Contains(out.String(), "TEST FAILED") {
		return out.String(), errBoot
	}
	if !strings.Contains(out.String(), "TEST PASSED") {
		return out.String(), errors.New("the tests did not pass")
	}
	return out.String(), nil
}

// console keeps what a machine prints, each time of which puts off the end.
type console struct {
	bytes.Buffer
	silent *time.Timer
}

func (c *console) Write(p []byte) (int, error) {
	c.silent.Reset(silentLimit)
	return c.Buffer.Write(p)
}
