// Command kernels runs the tests of the eBPF programs on other kernels, each in
// a virtual machine of its own; `make test-kernels` runs it. It needs
// qemu-system-x86_64 and cpio, and takes some seconds a kernel: the machines run
// without hardware virtualization.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bootTimeout is how long a kernel may take to boot and test: some ten times
// what it takes on a machine with nothing else to do.
const bootTimeout = 4 * time.Minute

func main() {
	dir := flag.String("dir", filepath.Join(os.TempDir(), "dnstrace-kernels"), "where kernels are unpacked and kept")
	verbose := flag.Bool("v", false, "print what every machine prints")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, verbose bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := command(ctx, "integration/kernels/get-kernels", dir); err != nil {
		return fmt.Errorf("get the kernels: %w", err)
	}
	kernels, err := images(dir)
	if err != nil {
		return err
	}
	image, err := buildImage(ctx, dir)
	if err != nil {
		return fmt.Errorf("build the test image: %w", err)
	}
	failures := 0
	for _, k := range kernels {
		start := time.Now()
		out, err := test(ctx, k, image)
		if err == nil && verbose {
			fmt.Print(out)
		}
		result := "ok"
		if err != nil {
			failures++
			result = "FAILED: " + err.Error() + "\n" + out
		}
		version, err := filepath.Rel(dir, k)
		if err != nil {
			return err
		}
		version, _, _ = strings.Cut(version, "/")
		fmt.Printf("%-32s %5.1f s  %s\n", version, time.Since(start).Seconds(), result)
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d kernels failed", failures, len(kernels))
	}
	fmt.Printf("%d kernels passed\n", len(kernels))
	return nil
}

// images returns the kernels below dir. Since 6.19 they are not in /boot.
func images(dir string) ([]string, error) {
	var all []string
	for _, pattern := range []string{"*/boot/vmlinuz-*", "*/usr/lib/modules/*/vmlinuz"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no kernel below %s", dir)
	}
	slices.Sort(all)
	return all, nil
}

// buildImage makes an initial file system of init and the tests, static
// programs all.
func buildImage(ctx context.Context, dir string) (string, error) {
	root, err := os.MkdirTemp(dir, "root-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(root) }()
	for _, d := range []string{"dev", "tests"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	static := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		return cmd.Run()
	}
	err = errors.Join(
		static("build", "-o", filepath.Join(root, "init"), "./integration/kernels/init"),
		static("test", "-c", "-o", filepath.Join(root, "tests", "capture"), "./tracer/capture"),
		command(ctx, "mknod", filepath.Join(root, "dev", "console"), "c", "5", "1"),
		command(ctx, "mknod", filepath.Join(root, "dev", "null"), "c", "1", "3"),
	)
	if err != nil {
		return "", err
	}
	image := filepath.Join(dir, "image.cpio")
	// Not compressed: unpacking takes longer than reading, without hardware help.
	return image, command(ctx, "sh", "-c", `cd "$1" && find . | cpio -o -H newc --quiet >"$2"`, "sh", root, image)
}

// errBoot is a machine that did not get as far as init.
var errBoot = errors.New("the kernel did not boot")

// maxBoots is how often a kernel may try to boot: QEMU without hardware
// virtualization now and then trips over the kernel patching its own code on one
// processor while another runs it. What init has begun is never tried again.
const maxBoots = 3

// test boots a kernel until it runs the tests.
func test(ctx context.Context, kernel, image string) (out string, err error) {
	for range maxBoots {
		if out, err = boot(ctx, kernel, image); !errors.Is(err, errBoot) {
			break
		}
	}
	return out, err
}

// boot runs the image under a kernel and returns what it printed.
func boot(ctx context.Context, kernel, image string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-M", "microvm,x-option-roms=off,rtc=on", "-accel", "tcg",
		// QEMU 7.2 gets flags wrong around cmpxchg16b, which the slab of newer kernels uses.
		"-cpu", "max,-cx16", "-m", "512", "-smp", "2",
		"-kernel", kernel, "-initrd", image,
		"-append", "console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=2600000",
		"-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("qemu: %w", errors.Join(err, ctx.Err()))
	}
	if !strings.Contains(out.String(), "=== RUN") && !strings.Contains(out.String(), "TEST FAILED") {
		return out.String(), errBoot
	}
	if !strings.Contains(out.String(), "TEST PASSED") {
		return out.String(), errors.New("the tests did not pass")
	}
	return out.String(), nil
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}
