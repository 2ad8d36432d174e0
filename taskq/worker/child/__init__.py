"""A worker's child: takes messages on its lanes, runs them, settles them."""
