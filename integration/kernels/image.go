package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

// buildImage makes an initial file system of init, the tests and the tracer,
// static programs all.
func buildImage(ctx context.Context, dir, arch string) (string, error) {
	root, err := os.MkdirTemp(dir, "root-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(root) }()
	for _, d := range []string{"dev", "tests", "bin"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	static := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		cmd.Stderr = os.Stderr
		return cmd.Run()
	}
	err = errors.Join(
		static("build", "-o", filepath.Join(root, "init"), "./integration/kernels/init"),
		static("build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "bin", "dnstrace"), "./cmd/dnstrace"),
		static("test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "tests", "capture"), "./tracer/capture"),
		static("test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "tests", "onkernel"), "./integration/kernels/onkernel"),
		command(ctx, "mknod", filepath.Join(root, "dev", "console"), "c", "5", "1"),
		command(ctx, "mknod", filepath.Join(root, "dev", "null"), "c", "1", "3"),
	)
	if err != nil {
		return "", err
	}
	image := filepath.Join(dir, "image-"+arch+".cpio")
	return image, archive(ctx, root, image)
}

// archive is not compressed: unpacking takes longer than reading, without hardware
// help.
func archive(ctx context.Context, root, file string) error {
	return command(ctx, "sh", "-c", `cd "$1" && find . | cpio -o -H newc --quiet >"$2"`, "sh", root, file)
}

// modulesOf are what the tests need beyond the kernel itself: namespaces joined by
// veth, rules of nftables and masquerade, Services of IPVS, overlays.
var modulesOf = []string{"veth", "nf_tables", "nf_conntrack", "nf_nat", "nft_chain_nat", "nft_masq", "ip_vs", "ip_vs_rr", "vxlan", "8021q"}

// toolsOf are the programs that set them up, of this machine: with its libraries,
// and only for its architecture.
var toolsOf = []string{"nft", "ipvsadm"}

// withKernel returns a copy of the image that has a kernel's modules, numbered in
// the order in which they can be loaded, the tools that need them, and the list of
// what it lacks. A kernel takes several archives behind each other for one. The
// caller removes the copy.
func withKernel(ctx context.Context, k kernel, lacks []lack, arch, image, dir string) (string, error) {
	root, err := os.MkdirTemp(dir, "root-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(root) }()
	var list strings.Builder
	for _, l := range lacks {
		list.WriteString(string(l.feature) + "\n")
	}
	if err := os.WriteFile(filepath.Join(root, feature.LacksFile), []byte(list.String()), 0o644); err != nil {
		return "", err
	}
	if k.modules != "" {
		if err := copyModules(ctx, k, filepath.Join(root, "modules")); err != nil {
			return "", err
		}
		if arch == "amd64" {
			if err := copyTools(ctx, root); err != nil {
				return "", err
			}
		}
	}
	extra, whole := root+".cpio", filepath.Join(dir, "image-"+k.version+".cpio")
	defer func() { _ = os.Remove(extra) }()
	if err := archive(ctx, root, extra); err != nil {
		return "", err
	}
	return whole, command(ctx, "sh", "-c", `cat "$1" "$2" >"$3"`, "sh", image, extra, whole)
}

func copyModules(ctx context.Context, k kernel, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	files, err := moduleFiles(k.modules)
	if err != nil {
		return err
	}
	var loaded []string
	var load func(name string) error
	load = func(name string) error {
		if slices.Contains(loaded, name) {
			return nil
		}
		file, ok := files[name]
		if !ok {
			return fmt.Errorf("linux %s has no module %s", k.version, name)
		}
		plain := filepath.Join(to, name)
		if err := unpack(ctx, file, plain); err != nil {
			return err
		}
		needs, err := dependencies(plain)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, n := range needs {
			if err := load(n); err != nil {
				return err
			}
		}
		loaded = append(loaded, name)
		return os.Rename(plain, filepath.Join(to, fmt.Sprintf("%02d-%s.ko", len(loaded), name)))
	}
	for _, name := range modulesOf {
		if err := load(name); err != nil {
			return err
		}
	}
	return nil
}

// copyTools copies the tools and the libraries that the loader would give them.
func copyTools(ctx context.Context, root string) error {
	for _, tool := range toolsOf {
		path, err := exec.LookPath(tool)
		if err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "ldd", path).Output()
		if err != nil {
			return fmt.Errorf("ldd %s: %w", path, err)
		}
		files := []string{path}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
		for _, file := range files {
			to := filepath.Join(root, file)
			if file == path {
				to = filepath.Join(root, "bin", tool)
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			if err := command(ctx, "cp", "-L", file, to); err != nil {
				return err
			}
		}
	}
	return nil
}
