"""What can be run: `python -m diffusion_jax`."""

COMMANDS = """diffusion_jax, commands:

  python -m diffusion_jax.train --config FILE --workdir DIR      train, or go on training
  python -m diffusion_jax.distill --config FILE --teacher DIR --workdir DIR
                                                                 teach students to draw in a few steps
  python -m diffusion_jax.prepare --config FILE --first-stage DIR --out DIR
                                                                 encode images, to train on latents
  python -m diffusion_jax.sample --workdir DIR                   draw from a run, or from --pretrained FOLDER
  python -m diffusion_jax.evaluate --workdir DIR                 measure samples and likelihoods, or compare reports
  python -m diffusion_jax.export --workdir DIR --to FOLDER       write a run as a folder that others read

Each has --help. Configs are short Python files: see configs/ and docs/measured/configs.md."""

if __name__ == "__main__":
    print(COMMANDS)
