// image writes a container image of one layer as an OCI archive, from files of this machine: no registry, no daemon.
// The same input gives the same digest.
//
//	image OUT.tar NAME ENTRYPOINT[,ARG…] ITEM…
//
// An ITEM is FILE:PATH (a file), +PROGRAM (a dynamic program of this machine at /bin/PROGRAM, with the libraries that
// it names), or PATH=TARGET (a symbolic link).
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

const ociType = "application/vnd.oci.image."

// Directories that processes expect in any image; /tmp is everybody's.
var directories = []string{"tmp", "etc", "bin", "sbin", "usr/bin", "usr/sbin", "lib", "lib64", "root", "var", "run"}

type layer struct {
	tar  *tar.Writer
	seen map[string]bool
}

func main() {
	if len(os.Args) < 5 {
		fail(fmt.Errorf("usage: image OUT.tar NAME ENTRYPOINT[,ARG…] ITEM…"))
	}
	data, err := fill(os.Args[4:])
	if err == nil {
		err = write(os.Args[1], os.Args[2], strings.Split(os.Args[3], ","), data)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "image:", err)
	os.Exit(1)
}

// fill makes the layer.
func fill(items []string) ([]byte, error) {
	var buffer bytes.Buffer
	l := &layer{tar: tar.NewWriter(&buffer), seen: map[string]bool{}}
	for _, directory := range directories {
		if err := l.directory(directory); err != nil {
			return nil, err
		}
	}
	if err := l.bytes("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"), 0o644); err != nil {
		return nil, err
	}
	if err := l.bytes("etc/group", []byte("root:x:0:\nnogroup:x:65534:\n"), 0o644); err != nil {
		return nil, err
	}
	for _, item := range items {
		if err := l.item(item); err != nil {
			return nil, fmt.Errorf("%s: %w", item, err)
		}
	}
	err := l.tar.Close()
	return buffer.Bytes(), err
}

func (l *layer) item(item string) error {
	if program, ok := strings.CutPrefix(item, "+"); ok {
		return l.program(program)
	}
	if link, target, ok := strings.Cut(item, "="); ok {
		return l.link(link, target)
	}
	file, target, ok := strings.Cut(item, ":")
	if !ok {
		return fmt.Errorf("neither FILE:PATH, +PROGRAM nor PATH=TARGET")
	}
	return l.file(file, target)
}

// program adds a dynamic program, its loader and its libraries, theirs included.
func (l *layer) program(name string) error {
	found, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := l.file(found, "/bin/"+name); err != nil {
		return err
	}
	todo := []string{found}
	for len(todo) > 0 {
		file := todo[0]
		todo = todo[1:]
		binary, err := elf.Open(file)
		if err != nil {
			return err
		}
		if section := binary.Section(".interp"); section != nil {
			loader, err := section.Data()
			if err != nil {
				return err
			}
			target := strings.TrimRight(string(loader), "\x00")
			if err := l.file(target, target); err != nil {
				return err
			}
		}
		libraries, err := binary.ImportedLibraries()
		binary.Close()
		if err != nil {
			return err
		}
		for _, library := range libraries {
			at, err := locate(library)
			if err != nil {
				return err
			}
			if !l.seen[strings.TrimPrefix(at, "/")] {
				if err := l.file(at, at); err != nil {
					return err
				}
				todo = append(todo, at)
			}
		}
	}
	return nil
}

// locate finds a library where Debian's loader does.
func locate(library string) (string, error) {
	triplets := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
	for _, directory := range []string{"/lib/" + triplets[runtime.GOARCH], "/usr/lib/" + triplets[runtime.GOARCH], "/lib64", "/lib"} {
		at := path.Join(directory, library)
		if _, err := os.Stat(at); err == nil {
			return at, nil
		}
	}
	return "", fmt.Errorf("library %s is nowhere", library)
}

func (l *layer) file(from, to string) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return l.bytes(to, data, 0o755)
}

func (l *layer) bytes(to string, data []byte, mode int64) error {
	return l.add(&tar.Header{Typeflag: tar.TypeReg, Name: to, Size: int64(len(data)), Mode: mode}, data)
}

func (l *layer) link(at, target string) error {
	return l.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: at, Linkname: target, Mode: 0o777}, nil)
}

func (l *layer) directory(name string) error {
	mode := int64(0o755)
	if name == "tmp" {
		mode = 0o1777
	}
	return l.add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
}

// add writes one entry after the directories above it. What is there already stays.
func (l *layer) add(header *tar.Header, data []byte) error {
	header.Name = strings.TrimPrefix(header.Name, "/")
	if l.seen[header.Name] {
		return nil
	}
	if parent := path.Dir(header.Name); parent != "." {
		if err := l.directory(parent); err != nil {
			return err
		}
	}
	l.seen[header.Name] = true
	if err := l.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := l.tar.Write(data)
	return err
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func describe(kind string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	return descriptor{MediaType: ociType + kind, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(data)}
}

// write makes the archive: layout, index, and three blobs.
func write(out, name string, entrypoint []string, data []byte) error {
	platform := map[string]string{"architecture": runtime.GOARCH, "os": "linux"}
	content := describe("layer.v1.tar", data)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": entrypoint[:1], "Cmd": entrypoint[1:], "Env": []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin:/"}, "WorkingDir": "/"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{content.Digest}},
		"history":      []any{map[string]any{}},
	})
	if err != nil {
		return err
	}
	settings := describe("config.v1+json", config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ociType + "manifest.v1+json", "config": settings, "layers": []descriptor{content},
	})
	if err != nil {
		return err
	}
	entry := describe("manifest.v1+json", manifest)
	entry.Platform = platform
	entry.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:]}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{entry}})
	if err != nil {
		return err
	}
	blob := func(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	return archive(out, []string{"oci-layout", "index.json", blob(settings), blob(entry), blob(content)},
		[][]byte{[]byte(`{"imageLayoutVersion":"1.0.0"}`), index, config, manifest, data})
}

func archive(out string, names []string, contents [][]byte) error {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for i, name := range names {
		if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(contents[i])), Mode: 0o644}); err != nil {
			return err
		}
		if _, err := writer.Write(contents[i]); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, slices.Clip(buffer.Bytes()), 0o644)
}
